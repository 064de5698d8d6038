/** A list that loads page by page. */

import { useState } from "preact/hooks";
import { useResource } from "../resource";

interface Page<T> {
  data: T[];
  next_cursor?: string | null;
}

export interface PagedList<T> {
  items: T[] | null;
  error: unknown;
  hasMore: boolean;
  more: () => Promise<void>;
  /** Loads the first page again. */
  reload: () => void;
}

type LoadPage<T> = (after: string | null, signal: AbortSignal) => Promise<Page<T>>;

export function useList<T>(load: LoadPage<T>, inputs: readonly unknown[]): PagedList<T> {
  const first = useResource((signal) => load(null, signal), inputs);
  const [failure, setFailure] = useState<unknown>(null);
  const { data, set } = first;

  async function more(): Promise<void> {
    if (!data?.next_cursor) return;
    try {
      const next = await load(data.next_cursor, new AbortController().signal);
      set({ ...next, data: [...data.data, ...next.data] });
      setFailure(null);
    } catch (error) {
      setFailure(error);
    }
  }

  return {
    items: data?.data ?? null,
    error: first.error ?? failure,
    hasMore: Boolean(data?.next_cursor),
    more,
    reload: first.reload,
  };
}

export function More<T>({ list }: { list: PagedList<T> }) {
  if (!list.hasMore) return null;
  return (
    <div class="actions">
      <button type="button" onClick={() => void list.more()}>
        Show more
      </button>
    </div>
  );
}
