/** Reads the answer of an API call: bounded, then JSON, then the shape that was agreed. */
import type { z } from "zod";
import { NixdeployError } from "../errors.ts";
import { formatBytes } from "../quantity.ts";
import { type Answer, notACoordinator } from "./failure.ts";

const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const FAULTS_MAX = 5;

/** @throws NixdeployError "remote" when it is too large */
export async function readAnswerText(body: AsyncIterable<Uint8Array>, source: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let lengthBytes = 0;
  for await (const chunk of body) {
    lengthBytes += chunk.length;
    if (lengthBytes > ANSWER_BYTES_MAX) {
      throw new NixdeployError(
        "remote",
        `cannot use ${source}: its answer is larger than ${formatBytes(ANSWER_BYTES_MAX)}`,
        {
          hint: HINT_COORDINATOR,
        },
      );
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
  if (answer.text === "") {
    throw new NixdeployError("remote", `cannot use ${source}: its answer is empty`, { hint: HINT_COORDINATOR });
  }
  throw new NixdeployError("remote", `cannot use ${source}: its answer has another shape than expected`, {
    details: parsed.error.issues.slice(0, FAULTS_MAX).map(describeFault),
    hint: HINT_COORDINATOR,
  });
}

const HINT_COORDINATOR =
  "Is it a nixdeploy coordinator (NIXDEPLOY_URL or --url)? If it is: do the versions here and there fit together?";

/** `agents.0.name: expected string, received number` */
function describeFault({ path, message }: z.core.$ZodIssue): string {
  const why = message.replace(/^Invalid input: /, "").replace(/^expected .*, received undefined$/, "it is missing");
  return `${path.join(".") || "answer"}: ${why}`;
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
