/** What a screen reader is told without moving the focus: progress, ends, failures. */

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
