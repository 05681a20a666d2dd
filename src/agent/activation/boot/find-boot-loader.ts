/** Which boot loader this machine has, and the programs by which it is asked and told. */
import { NixdeployError } from "../../../errors.ts";
import type { Clock } from "../../../runtime.ts";
import { readTextOrNull } from "../../machine/look.ts";
import type { RunProgram } from "../../machine/process.ts";
import { describeExit, isSuccess } from "../../machine/program-exit.ts";
import type { BootLoader, RunLoaderTool } from "./boot-loader.ts";
import { createGrub, GRUB_CONFIG, parseGrubConfig } from "./grub.ts";
import { createSystemdBoot, isSystemdBoot } from "./systemd-boot.ts";

const TOOL_MAX_MS = 60_000;

/** The one that booted this machine. @returns why it cannot be used, a clause. @throws NixdeployError("host") */
export async function findBootLoader(deps: {
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly environment: Readonly<Record<string, string>>;
}): Promise<BootLoader | string> {
  const tool = createTool(deps);
  if (await isSystemdBoot()) return createSystemdBoot(tool);
  const config = await readTextOrNull(GRUB_CONFIG);
  if (config === null) return "this machine's boot loader is neither systemd-boot nor GRUB";
  if (parseGrubConfig(config).isDefaultSaved) return createGrub(tool);
  return 'its GRUB does not fall back by itself, which takes `boot.loader.grub.default = "saved"`';
}

function createTool(deps: Parameters<typeof findBootLoader>[0]): RunLoaderTool {
  return async (command, args) => {
    const lines: string[] = [];
    const errors: string[] = [];
    const exit = await deps.run({
      ...deps,
      ...{ command, args, deadlineMs: TOOL_MAX_MS },
      onLine: async (stream, text) => void (stream === "out" ? lines : errors).push(text),
    });
    if (isSuccess(exit)) return lines.join("\n");
    const line = [command, ...args.map((arg) => (arg === "" ? '""' : arg))].join(" ");
    throw new NixdeployError("host", `${line} ${describeExit(exit)} ${errors.join(" ")}`.trim());
  };
}
