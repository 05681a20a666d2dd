/** Reads the answer of an API call: bounded, then JSON, then the shape that was agreed. */
import type { z } from "zod";
import { NixdeployError } from "./errors.ts";
import { type Answer, notACoordinator } from "./http-failure.ts";

const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const FAULTS_MAX = 5;

/** @throws NixdeployError "remote" when it is too large */
export async function readAnswerText(body: AsyncIterable<Uint8Array>, source: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let lengthBytes = 0;
  for await (const chunk of body) {
    lengthBytes += chunk.length;
    if (lengthBytes > ANSWER_BYTES_MAX) {
      throw new NixdeployError("remote", `cannot use ${source}: its answer is larger than ${ANSWER_BYTES_MAX} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** @throws NixdeployError "remote" when it is no JSON or has another shape */
export function parseAnswer<T>(answer: Answer, schema: z.ZodType<T>, source: string): T {
  const parsed = schema.safeParse(parseJson(answer, source));
  if (parsed.success) {
    return parsed.data;
  }
  const faults = parsed.error.issues
    .slice(0, FAULTS_MAX)
    .map(({ path, message }) => `${path.join(".") || "answer"}: ${message}`);
  throw new NixdeployError("remote", `cannot use ${source}: its answer has another shape than expected`, {
    details: faults,
    hint: "Do the versions of nixdeploy here and there fit together?",
  });
}

function parseJson(answer: Answer, source: string): unknown {
  if (answer.text === "") {
    return null;
  }
  try {
    return JSON.parse(answer.text);
  } catch {
    // The text itself may be anything, a login page for example: it is not repeated.
    throw notACoordinator(answer, source);
  }
}
