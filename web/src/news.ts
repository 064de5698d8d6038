/** Messages to screen readers that do not move the focus: progress, completion, errors. */

type Listener = (text: string) => void;

let listener: Listener | null = null;

export function announce(text: string): void {
  listener?.(text);
}

export function onNews(next: Listener): () => void {
  listener = next;
  return () => {
    if (listener === next) listener = null;
  };
}
