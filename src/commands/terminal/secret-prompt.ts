/**
 * Asks for a secret on a terminal without showing it. Whatever ends the question, the terminal is as it was before.
 */
import { NixdeployError } from "../../errors.ts";
import type { OutputStream } from "../command-line/context.ts";

/** @throws NixdeployError "interrupted" when the person does not answer (Ctrl-C, Ctrl-D) · the signal's reason */
export type AskSecret = (prompt: string, signal: AbortSignal) => Promise<string>;

export type Typing = {
  readonly text: string;
  readonly end: "entered" | "given-up" | null;
};

const INTERRUPT = "\u0003";
const END_OF_INPUT = "\u0004";
const BACKSPACES = ["\u007f", "\b"];
const KILL_LINE = "\u0015";

/** What has been typed, after these characters too. Pure. */
export function typeCharacters(typing: Typing, characters: string): Typing {
  let { text } = typing;
  for (const character of characters) {
    if (character === "\r" || character === "\n") return { text, end: "entered" };
    if (character === INTERRUPT || (character === END_OF_INPUT && text === "")) return { text: "", end: "given-up" };
    if (BACKSPACES.includes(character)) text = text.slice(0, -1);
    else if (character === KILL_LINE) text = "";
    else if (character >= " ") text += character;
  }
  return { text, end: null };
}

export function createSecretPrompt(stdin: NodeJS.ReadStream, stderr: OutputStream): AskSecret {
  return async (prompt, signal) => {
    signal.throwIfAborted();
    await stderr.write(prompt);
    stdin.setRawMode(true);
    try {
      return await readTyped(stdin, signal);
    } finally {
      stdin.setRawMode(false);
      stdin.pause();
      await stderr.write("\n");
    }
  };
}

function readTyped(stdin: NodeJS.ReadStream, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let typing: Typing = { text: "", end: null };
    const settle = (finish: () => void) => {
      stdin.off("data", onData);
      stdin.off("end", onEnd);
      signal.removeEventListener("abort", onAbort);
      finish();
    };
    const giveUp = () => reject(new NixdeployError("interrupted", "interrupted"));
    const onAbort = () => settle(() => reject(signal.reason));
    const onEnd = () => settle(giveUp);
    const onData = (chunk: Buffer) => {
      typing = typeCharacters(typing, chunk.toString("utf8"));
      if (typing.end === "entered") settle(() => resolve(typing.text));
      if (typing.end === "given-up") settle(giveUp);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    stdin.on("data", onData);
    stdin.on("end", onEnd);
    stdin.resume();
  });
}
