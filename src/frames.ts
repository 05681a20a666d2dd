/**
 * From the text of a frame to the frame, for either side of the agent protocol. What a frame may be says `protocol.ts`.
 */
import { z } from "zod";
import { type AgentFrame, agentFrameSchema, type CoordinatorFrame, coordinatorFrameSchema } from "./protocol.ts";

const FAULTS_MAX = 5;
const FAULTS_LENGTH_MAX = 2_000;

export type DecodedFrame<Frame> =
  | { readonly kind: "frame"; readonly frame: Frame }
  /** Valid JSON with a kind this version does not know: answer `error`, go on. */
  | { readonly kind: "unknown"; readonly frameKind: string }
  | { readonly kind: "malformed"; readonly reason: string };

/** Parses a text frame from an agent. Never throws. */
export function decodeAgentFrame(text: string): DecodedFrame<AgentFrame> {
  return decodeFrame(agentFrameSchema, kindsOf(agentFrameSchema.options), text);
}

/** Parses a text frame from a coordinator. Never throws. */
export function decodeCoordinatorFrame(text: string): DecodedFrame<CoordinatorFrame> {
  return decodeFrame(coordinatorFrameSchema, kindsOf(coordinatorFrameSchema.options), text);
}

type KindSchema = { readonly shape: { readonly kind: { readonly value: string } } };
const kindsOf = (options: readonly KindSchema[]) => new Set(options.map((option) => option.shape.kind.value));
const anyFrameSchema = z.object({ kind: z.string().max(64) });

function decodeFrame<Frame>(schema: z.ZodType<Frame>, kinds: ReadonlySet<string>, text: string): DecodedFrame<Frame> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: "malformed", reason: "it is not JSON" };
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return { kind: "frame", frame: parsed.data };
  const named = anyFrameSchema.safeParse(value);
  if (named.success && !kinds.has(named.data.kind)) return { kind: "unknown", frameKind: named.data.kind };
  return { kind: "malformed", reason: describeFaults(parsed.error) };
}

/** In a few lines, whatever is wrong: the other side gets to read them. */
function describeFaults({ issues }: z.ZodError): string {
  const text = z.prettifyError(new z.ZodError(issues.slice(0, FAULTS_MAX)));
  const more = issues.length > FAULTS_MAX ? `\nand ${issues.length - FAULTS_MAX} more` : "";
  return `${text.slice(0, FAULTS_LENGTH_MAX)}${more}`;
}
