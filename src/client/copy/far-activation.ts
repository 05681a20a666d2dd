/** What is asked of a system on another machine, whoever over there makes it live. */
import type { StorePath } from "../../nix/store-path.ts";
import type { Clock } from "../../runtime.ts";
import type { Side } from "./side.ts";
import type { SystemMethod } from "./system-end.ts";

export type FarActivation = {
  readonly side: Side;
  readonly storePath: StorePath;
  readonly method: SystemMethod;
  /** Absolute. */
  readonly profilePath: string;
  readonly asRoot: boolean;
  readonly confirmWindowMs: number;
  /** Of each step. */
  readonly activationTimeoutMs: number;
  /** Output of what runs over there. */
  readonly onLine: (text: string) => void;
  readonly note: (text: string) => void;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};
