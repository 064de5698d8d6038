import { useEffect, useState } from "preact/hooks";
import { onNews } from "../news";

/** The live region that holds the messages of `announce`. */
export function News() {
  const [text, setText] = useState("");
  useEffect(() => onNews(setText), []);
  return (
    <p class="unseen" role="status" aria-live="polite">
      {text}
    </p>
  );
}
