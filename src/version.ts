/** The version of this program, as package.json states it; the build puts the text into the binary. */
import { version } from "../package.json" with { type: "json" };

export const NIXDEPLOY_VERSION: string = version;
