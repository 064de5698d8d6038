/** Calls of the service: each returns the body of the response or throws a Refusal. */

import type { Problem } from "./generated/types.gen";
import { wantKey } from "./session";

export * from "./generated/sdk.gen";
export type * from "./generated/types.gen";

interface ApiResponse<T> {
  data?: T;
  error?: unknown;
  response?: Response;
}

/** An error response of the service, or a failure to reach it; docs/errors.md lists each `code`. */
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

/** Returns the body of a successful response; throws a Refusal otherwise. */
export async function call<T>(request: Promise<ApiResponse<T>>): Promise<T> {
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

/** Converts any thrown value to a problem that a view can show. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Refusal) return error.problem;
  const detail = error instanceof Error ? error.message : String(error);
  return { type: "about:blank", title: "Page error", status: 0, code: "page_failed", detail };
}

const UNREACHABLE: Problem = {
  type: "about:blank",
  title: "Service unreachable",
  status: 0,
  code: "unreachable",
  detail: "The service does not respond. Check that it is running and that this machine can reach it.",
};

function unknownProblem(response: Response): Problem {
  const detail = `The service responded with status ${response.status} and gave no reason.`;
  return { type: "about:blank", title: "Error", status: response.status, code: "unknown", detail };
}
