/** `nixdeploy logout`: forgets what `nixdeploy login` has saved. The token itself stays good. */
import { NixdeployError } from "../errors.ts";
import { defineNixdeployCommand } from "./command-line/args.ts";
import { findCoordinatorUrl } from "./command-line/environment.ts";
import { notLoggedIn, readAddress } from "./login.ts";
import { changeLogins, loadLogins, withoutLogin } from "./logins.ts";
import { printResult } from "./terminal/output.ts";

export const command = defineNixdeployCommand({
  name: "logout",
  summary: "Forget a coordinator and its token",
  details: "Only here: the token stays good until it expires or is revoked (`nixdeploy token revoke`).",
  args: {},
  positionals: { address: { label: "URL", description: "The coordinator's address (default: the current one)" } },
  async run({ args, context }) {
    const logins = await loadLogins(context.env);
    const flag = context.urlFlag === null ? null : findCoordinatorUrl(context);
    const url = readAddress(context, args.address) ?? flag?.text ?? logins.current;
    if (url === null) {
      throw new NixdeployError("usage", "cannot log out: no coordinator is the current one", {
        hint: "`nixdeploy login list` shows all: nixdeploy logout URL",
      });
    }
    const left = await changeLogins(context, (now) => {
      if (!now.logins.some((login) => login.url === url)) throw notLoggedIn(url, now.logins);
      return withoutLogin(now, url);
    });
    await printResult(context, { json: { url, current: left.current }, text: "" });
    context.log.info(
      `logged out of ${url}${left.current === null ? "" : `; commands use ${left.current} from now on`}`,
    );
  },
});
