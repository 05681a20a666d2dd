/** `nixdeploy restore`: makes a backup the database of a coordinator that does not run. */
import { resolve } from "node:path";
import { formatCount } from "../quantity.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { resolveDataDirectory } from "./command-line/directories.ts";
import { printResult } from "./terminal/output.ts";

export const command = defineNixdeployCommand({
  name: "restore",
  summary: "Make a backup the coordinator's database",
  details:
    "While `serve` does not run. Deployments that had not begun are cancelled, because they may have been done, or " +
    "overtaken, since the backup. Store paths whose NAR files are not in DATA_DIR/nars are forgotten: the next push " +
    "uploads them again. Agents that were admitted after the backup need their token again.",
  args: {
    dataDir: {
      type: "string",
      valueHint: "DIR",
      description: "The coordinator's data directory",
      parse: (text) => resolve(text),
    },
    replace: { type: "boolean", description: "Put a database that is there aside, under another name" },
  },
  positionals: { file: { label: "FILE", description: "What `nixdeploy backup` wrote", required: true } },
  async run({ args, context }) {
    const { restoreBackup } = await import("../server/operations/backup.ts");
    const dataDirectory = args.dataDir ?? resolveDataDirectory(context.env);
    const { replace } = args;
    const report = await restoreBackup({ file: resolve(args.file), dataDirectory, replace, clock: context.clock });
    const lines = [
      `restored ${dataDirectory}`,
      `${formatCount(report.cancelled, "deployment")} that had not begun: cancelled`,
      `${formatCount(report.forgottenPaths, "store path")} without NAR file: forgotten`,
      ...(report.replaced === null ? [] : [`the database that was there: ${report.replaced}`]),
    ];
    await printResult(context, { json: report, text: lines.join("\n") });
  },
});
