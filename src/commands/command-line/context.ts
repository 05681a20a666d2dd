/** What a command gets from the process it runs in: everything that it may touch, so that tests can give it another. */
import type { Logger } from "../../log.ts";
import type { Clock, Random } from "../../runtime.ts";
import type { AskSecret } from "../terminal/secret-prompt.ts";

/** The environment variables, as they were when the process started. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** In characters. */
export type TerminalSize = { readonly columns: number; readonly rows: number };

export type OutputStream = {
  /** Resolves when the text has been handed to the operating system; never rejects for a reader that is gone. */
  write(text: string): Promise<void>;
  readonly isTerminal: boolean;
  /** Of a terminal, as it is now: people change it. */
  readonly size?: () => TerminalSize;
};

/** What takes commands out of the log of a step: GitHub Actions' runner, and those of Forgejo and Gitea. */
export type WorkflowLog = {
  /** Writes workflow commands; everything else that is printed is made harmless (`workflow-commands.ts`). */
  write(commands: string): Promise<void>;
};

export type SignalListener = (signal: NodeJS.Signals) => void;

export type CommandContext = {
  /** Aborted by the first SIGINT or SIGTERM. A command that then returns has succeeded; one that throws was interrupted. */
  readonly signal: AbortSignal;
  /** Null outside of such a CI. */
  readonly workflow: WorkflowLog | null;
  /** Told of each SIGINT and SIGTERM, the one that ends this process included: to pass them on to a program that is run. */
  readonly onSignal: (listener: SignalListener) => Disposable;
  /** For results only; logs and progress go to `log` and `stderr`. */
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  /** The bytes of standard input, to the end. */
  readonly readStdin: () => AsyncIterable<Uint8Array>;
  /** Asks the person at the terminal for a secret, unseen; null when standard input is no terminal. */
  readonly askSecret: AskSecret | null;
  readonly log: Logger;
  /** The form of what `log` writes. */
  readonly logFormat: "text" | "json";
  readonly env: Environment;
  readonly clock: Clock;
  readonly random: Random;
  /** `--json`: the result is one JSON document on stdout. */
  readonly json: boolean;
  /** What `--url` said; null without the flag. `readCoordinatorUrl` (environment.ts) knows the environment too. */
  readonly urlFlag: string | null;
  readonly verbose: boolean;
};
