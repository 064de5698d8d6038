/** A dialog that asks for a confirmation or for a line of text, one question at a time. */

import { useEffect, useRef, useState } from "preact/hooks";

interface Question {
  title: string;
  text?: string;
  /** label of the button that confirms */
  act: string;
  /** initial text of the input; without it the dialog asks for a confirmation only */
  preset?: string;
  answer: (text: string | null) => void;
}

let show: ((question: Question) => void) | null = null;

/** Resolves to true if the user confirms. */
export async function confirmed(title: string, text: string, act: string): Promise<boolean> {
  return (await put({ title, text, act })) !== null;
}

/** Resolves to the entered line, or to null if the user cancels. */
export function asked(title: string, preset: string, act: string): Promise<string | null> {
  return put({ title, act, preset });
}

function put(question: Omit<Question, "answer">): Promise<string | null> {
  return new Promise((answer) => {
    if (show) show({ ...question, answer });
    else answer(null);
  });
}

export function AskDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const [question, setQuestion] = useState<Question | null>(null);
  useEffect(() => {
    show = setQuestion;
    return () => {
      show = null;
    };
  }, []);
  useEffect(() => {
    if (question) dialog.current?.showModal();
  }, [question]);

  function end(text: string | null): void {
    question?.answer(text);
    setQuestion(null);
    dialog.current?.close();
  }

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    const field = (event.currentTarget as HTMLFormElement).elements.namedItem("line");
    end(field instanceof HTMLInputElement ? field.value.trim() : "");
  }

  return (
    <dialog ref={dialog} aria-labelledby="question" onClose={() => end(null)}>
      {question && (
        <form onSubmit={submit}>
          {question.preset === undefined ? (
            <>
              <h2 id="question">{question.title}</h2>
              <p class="quiet">{question.text}</p>
            </>
          ) : (
            <label class="field">
              <span id="question">{question.title}</span>
              <input name="line" autocomplete="off" value={question.preset} />
            </label>
          )}
          <div class="actions">
            <button class={question.preset === undefined ? "danger" : "primary"}>{question.act}</button>
            <button type="button" onClick={() => end(null)}>
              Cancel
            </button>
          </div>
        </form>
      )}
    </dialog>
  );
}
