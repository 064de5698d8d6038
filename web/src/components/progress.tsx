/** A progress bar with text below it; without a share it is indeterminate. */

interface Props {
  label: string;
  /** from 0 to 1 */
  share: number | null;
  children?: preact.ComponentChildren;
}

export function ProgressBar({ label, share, children }: Props) {
  const percent = share === null ? undefined : Math.round(Math.min(share, 1) * 1000) / 10;
  return (
    <div class="progress">
      <div
        class={share === null ? "bar endless" : "bar"}
        role="progressbar"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={percent}
      >
        <div style={{ width: share === null ? "30%" : `${percent}%` }} />
      </div>
      {children && <div class="row apart quiet">{children}</div>}
    </div>
  );
}
