/**
 * Tries a release's binary where this machine can run it: its own platform, or arm64 by QEMU's user emulation with the
 * C library of a cross compiler (Debian: qemu-user-static, libc6-arm64-cross).
 */
import { existsSync } from "node:fs";
import { arch, platform } from "node:process";
import { type SmokeOptions, smokeRun } from "../../build.ts";
import type { ExecutableFormat } from "./executable.ts";

export type SmokeResult =
  | { readonly kind: "ran"; readonly how: string }
  | { readonly kind: "not-run"; readonly why: string };

const EMULATORS = ["qemu-aarch64-static", "qemu-aarch64"];
const ARM64_ROOT = "/usr/aarch64-linux-gnu";

type Launch = SmokeResult &
  ({ readonly kind: "not-run" } | { readonly kind: "ran"; readonly with: Omit<SmokeOptions, "binary"> });

/** @throws Error when the binary ran and was not right */
export function trySmoke(binary: string, format: ExecutableFormat): SmokeResult {
  const launch = planLaunch(format);
  if (launch.kind === "not-run") return launch;
  try {
    smokeRun({ binary, ...launch.with });
  } catch (error) {
    // What the binary for musl needs beside the loader, and what a machine with the loader may not have.
    if (error instanceof Error && error.message.includes("Error loading shared library libstdc++")) {
      return { kind: "not-run", why: "there is no libstdc++ for musl here" };
    }
    throw error;
  }
  return { kind: "ran", how: launch.how };
}

function planLaunch(format: ExecutableFormat): Launch {
  if (format.kind === "mach-o") {
    return platform === "darwin" && arch === format.machine
      ? { kind: "ran", how: "here", with: {} }
      : { kind: "not-run", why: "it needs a Mac; its format and the hashes of its signature were checked" };
  }
  if (platform !== "linux") return { kind: "not-run", why: "it needs Linux" };
  if (arch === format.machine) {
    return existsSync(format.loader)
      ? { kind: "ran", how: "here", with: {} }
      : { kind: "not-run", why: `there is no ${format.loader} here` };
  }
  const emulator = EMULATORS.map((name) => Bun.which(name)).find((path) => path !== null);
  if (format.machine !== "arm64" || emulator === undefined) {
    return { kind: "not-run", why: `this machine is ${arch}, and there is no emulator for ${format.machine}` };
  }
  if (!existsSync(`${ARM64_ROOT}${format.loader}`)) {
    return { kind: "not-run", why: `there is no ${ARM64_ROOT}${format.loader} here` };
  }
  return {
    kind: "ran",
    how: "emulated by QEMU",
    with: { launcher: [emulator], env: { QEMU_LD_PREFIX: ARM64_ROOT } },
  };
}
