/** Calls of the service: what they answer, or a Refusal that says why not. */

import type { Problem } from "./generated/types.gen";
import { wantKey } from "./session";

export * from "./generated/sdk.gen";
export type * from "./generated/types.gen";

interface Answer<T> {
  data?: T;
  error?: unknown;
  response?: Response;
}

/** An error of the service, or of the way to it; `code` is what the documents list. */
export class Refusal extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
  }

  get code(): string {
    return this.problem.code;
  }

  get status(): number {
    return this.problem.status;
  }
}

/** Returns the body of an answer; throws a Refusal otherwise. */
export async function call<T>(request: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await request;
  if (response?.ok) return data as T;
  if (error instanceof DOMException && error.name === "AbortError") throw error;
  throw refusal(error, response);
}

export function refusal(error: unknown, response?: Response): Refusal {
  if (response === undefined) return new Refusal(UNREACHABLE);
  if (response.status === 401) wantKey();
  return new Refusal(isProblem(error) ? error : unknownProblem(response));
}

export function isProblem(value: unknown): value is Problem {
  return typeof value === "object" && value !== null && "code" in value && "detail" in value;
}

/** Returns what is to be shown of anything that was thrown. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Refusal) return error.problem;
  const detail = error instanceof Error ? error.message : String(error);
  return { type: "about:blank", title: "The page failed", status: 0, code: "page_failed", detail };
}

const UNREACHABLE: Problem = {
  type: "about:blank",
  title: "No answer",
  status: 0,
  code: "unreachable",
  detail: "The service does not answer. Is it running, and is this machine connected to it?",
};

function unknownProblem(response: Response): Problem {
  const detail = `The answer was ${response.status} without a reason.`;
  return { type: "about:blank", title: "Error", status: response.status, code: "unknown", detail };
}
