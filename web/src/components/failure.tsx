/** An error of the service: its message, the invalid fields of the input, its code. */

import type { ComponentChildren } from "preact";
import { problemOf } from "../api";

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const problem = problemOf(error);
  // A single error is already part of the message above.
  const items = (problem.errors ?? []).filter((item) => !problem.detail.includes(item.detail));
  return (
    <div class="notice failure" role="alert">
      <p>
        <strong>{problem.title}.</strong> {problem.detail}
      </p>
      {items.length > 0 && (
        <ul>
          {items.map((item) => (
            <li key={`${item.pointer} ${item.code}`}>
              {item.pointer && <code>{item.pointer}</code>} {item.detail}
            </li>
          ))}
        </ul>
      )}
      <p class="quiet">
        <code>{problem.code}</code>
        {problem.request_id && <> · request {problem.request_id}</>}
      </p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

interface NoticesProps<N> {
  notices: N[];
  /** what the user can do about a notice */
  action?: (notice: N) => ComponentChildren;
}

export function Notices<N extends { code: string; detail: string }>({ notices, action }: NoticesProps<N>) {
  if (notices.length === 0) return null;
  return (
    <ul class="notices">
      {notices.map((notice) => (
        <li class="notice warning row apart" key={notice.code + notice.detail}>
          <span>
            {notice.detail} <code class="quiet">{notice.code}</code>
          </span>
          {action?.(notice)}
        </li>
      ))}
    </ul>
  );
}
