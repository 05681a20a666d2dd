/**
 * Whose a state directory is. Whoever is root must not leave files of root among those of somebody else's agent: it could
 * not read them, and would be locked out by its own state.
 */
import { stat } from "node:fs/promises";
import { NixdeployError } from "../../errors.ts";
import { isMissing } from "./system-error.ts";

/** One that is not there yet will be ours. @throws NixdeployError("host") for somebody else's · the system's error */
export async function requireOwnDirectory(path: string, userId = process.getuid?.()): Promise<void> {
  const uid = await stat(path).then(
    (found) => found.uid,
    (error: unknown) => {
      if (isMissing(error)) return userId;
      throw error;
    },
  );
  if (uid === userId) return;
  throw new NixdeployError("host", `cannot use ${path}: it belongs to the user with the id ${uid}`, {
    hint: "Do it as that user.",
  });
}
