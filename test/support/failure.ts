/** What a piece of work fails with, as a value that a test can look at. */
import { NixdeployError } from "../../src/errors.ts";

/** @throws Error when it does not fail */
export async function thrownBy(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    (value) => {
      throw new Error(`it did not fail: ${JSON.stringify(value)}`);
    },
    (error: unknown) => error,
  );
}

/** The same for what a user is told. @throws the error, when it is another one */
export async function failureOf(work: Promise<unknown>): Promise<NixdeployError> {
  const error = await thrownBy(work);
  if (error instanceof NixdeployError) return error;
  throw error;
}
