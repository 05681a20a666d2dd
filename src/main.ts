import { NIXDEPLOY_VERSION } from "./version.ts";
process.stdout.write(`nixdeploy ${NIXDEPLOY_VERSION}\n`);
