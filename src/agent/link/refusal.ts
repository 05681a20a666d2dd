/**
 * What an agent does when the coordinator refuses its login. Pure.
 *
 * A service must not die of a mistake that somebody will mend on the coordinator, so it goes on trying; except at the
 * very first contact, where a person stands before it and the credential is wrong or missing.
 */
import type { AgentName } from "../../names.ts";
import type { Refused } from "./login.ts";

export type RefusalPlan =
  /** Log in again at once, with the agent token. */
  | { readonly kind: "send-token" }
  | { readonly kind: "retry"; readonly message: string; readonly hint: string }
  | { readonly kind: "give-up"; readonly message: string; readonly hint: string };

export type RefusalOptions = {
  readonly refusal: Refused;
  readonly name: AgentName;
  /** Of this device's key, for its operator to compare. */
  readonly fingerprint: string;
  readonly hasToken: boolean;
  /** Whether the refused login carried the token. */
  readonly tokenWasSent: boolean;
  /** Whether the coordinator admitted this key once. */
  readonly wasAdmitted: boolean;
};

export function planRefusal(options: RefusalOptions): RefusalPlan {
  const { refusal, name, hasToken, tokenWasSent, wasAdmitted } = options;
  if (refusal.code === "not-enrolled" && hasToken && !tokenWasSent) return { kind: "send-token" };
  const message = `cannot log in as ${name}: ${refusal.message.replace(/\.$/, "")}`;
  // What to compare is told by this device, not by the coordinator that might have been asked by somebody else.
  const hint = refusal.code === "name-taken" ? hintFor(options) : (refusal.hint ?? hintFor(options));
  const isCredential = refusal.code === "not-enrolled" || refusal.code === "token-refused";
  return { kind: isCredential && !wasAdmitted ? "give-up" : "retry", message, hint };
}

function hintFor({ refusal, name, fingerprint, hasToken }: RefusalOptions): string {
  switch (refusal.code) {
    case "not-enrolled":
      return hasToken
        ? "The agent token was not accepted for enrolment: make a new one with `nixdeploy token create --kind agent`."
        : "Give the agent a token for its first contact: NIXDEPLOY_AGENT_TOKEN or NIXDEPLOY_AGENT_TOKEN_FILE, made with `nixdeploy token create --kind agent`.";
    case "token-refused":
      return "The agent token is not valid (any more): make a new one with `nixdeploy token create --kind agent`.";
    case "name-taken":
      return (
        `This device's key is ${fingerprint}. If it was reinstalled, its operator admits it with ` +
        `\`nixdeploy agents approve ${name} --fingerprint ${fingerprint}\`; else choose another --name.`
      );
    case "key-retired":
      return "Remove the file `key` of the state directory to make this device a new agent.";
    case "other-name":
      return "This state directory belongs to an agent of another name: use its --name, or another --state-dir.";
    case "removed":
      return "Stop this agent; to make it a new one, remove the files `key` and `enrolment.json` of its state directory.";
    case "bad-signature":
      return "Is the file `key` of the state directory the one that was registered?";
    case "version":
      return "Update the older of the two: coordinator or agent.";
    case "other":
      return "This version does not know this reason: a newer one may say more.";
    default:
      return refusal.code satisfies never;
  }
}
