/**
 * Where the executable begins. Answers a bare `--version` without loading anything of the program; everything else,
 * also a `--version` that cannot be written, is main.ts's business.
 *
 * On its own because loading costs: standard streams, logger and command line take three times as long as Bun's own
 * start (bench/README.md), and scripts ask for the version often.
 */
import { NIXDEPLOY_VERSION } from "./version.ts";

const [word, ...others] = process.argv.slice(2);

if (word !== "--version" || others.length > 0 || !(await canWriteVersion())) {
  const { main } = await import("./main.ts");
  await main();
}

async function canWriteVersion(): Promise<boolean> {
  try {
    await Bun.write(Bun.stdout, `nixdeploy ${NIXDEPLOY_VERSION}\n`);
    return true;
  } catch {
    // A full disk or a reader that has gone: main.ts meets the same error and says what there is to say.
    return false;
  }
}
