/** `nixdeploy backup`: the coordinator's database in one file, taken while it serves. */
import { join, resolve } from "node:path";
import { formatBytes } from "../quantity.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { resolveDataDirectory } from "./command-line/directories.ts";
import { printResult } from "./terminal/output.ts";

export const command = defineNixdeployCommand({
  name: "backup",
  summary: "Copy the coordinator's database while it serves",
  details:
    "On the coordinator's own host. FILE holds agents, tokens, keys, deployments and the list of what is in the caches; " +
    "keep it as secret as the data directory. The NAR files are not in it: copy DATA_DIR/nars after the backup, with any " +
    "tool (they never change), or let the next push upload what is missing after a restore.",
  examples: [{ comment: "Each night", command: "nixdeploy backup /var/backups/nixdeploy.db" }],
  args: {
    dataDir: {
      type: "string",
      valueHint: "DIR",
      description: "The coordinator's data directory",
      parse: (text) => resolve(text),
    },
  },
  positionals: {
    file: { label: "FILE", description: "Written whole or not at all; replaced when it exists", required: true },
  },
  async run({ args, context }) {
    const { writeBackup } = await import("../server/operations/backup.ts");
    const { noteBackup } = await import("../server/operations/last-backup.ts");
    const dataDirectory = args.dataDir ?? resolveDataDirectory(context.env);
    const report = await writeBackup({
      databaseFile: join(dataDirectory, "coordinator.db"),
      file: resolve(args.file),
    });
    await noteBackup(dataDirectory, { file: report.file, atMs: context.clock.nowMs() });
    await printResult(context, { json: report, text: `${report.file} (${formatBytes(report.sizeBytes)})` });
  },
});
