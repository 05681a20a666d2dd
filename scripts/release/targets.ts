/** The platforms that a release has binaries for. */
import type { ExecutableFormat } from "./executable.ts";

export type ReleaseTarget = {
  /** As archives name it. */
  readonly name: string;
  /** As Bun's compiler names it. */
  readonly compileTarget: Bun.Build.CompileTarget;
  /** The package with Bun for it, pinned in bun.lock: `@oven/bun-…`. */
  readonly bunPlatform: string;
  readonly format: ExecutableFormat;
};

/**
 * armv7 is not there because Bun does not exist for it. x64 needs AVX2 (Intel from 2013, AMD from 2015): Bun's builds
 * for older processors are not among the packages that bun.lock pins.
 */
export const RELEASE_TARGETS: readonly ReleaseTarget[] = [
  {
    name: "linux-x64",
    compileTarget: "bun-linux-x64",
    bunPlatform: "linux-x64",
    format: { kind: "elf", machine: "x64", loader: "/lib64/ld-linux-x86-64.so.2" },
  },
  {
    name: "linux-arm64",
    compileTarget: "bun-linux-arm64",
    bunPlatform: "linux-aarch64",
    format: { kind: "elf", machine: "arm64", loader: "/lib/ld-linux-aarch64.so.1" },
  },
  {
    name: "linux-x64-musl",
    compileTarget: "bun-linux-x64-musl",
    bunPlatform: "linux-x64-musl",
    format: { kind: "elf", machine: "x64", loader: "/lib/ld-musl-x86_64.so.1" },
  },
  {
    name: "linux-arm64-musl",
    compileTarget: "bun-linux-arm64-musl",
    bunPlatform: "linux-aarch64-musl",
    format: { kind: "elf", machine: "arm64", loader: "/lib/ld-musl-aarch64.so.1" },
  },
  {
    name: "macos-arm64",
    compileTarget: "bun-darwin-arm64",
    bunPlatform: "darwin-aarch64",
    format: { kind: "mach-o", machine: "arm64" },
  },
  {
    name: "macos-x64",
    compileTarget: "bun-darwin-x64",
    bunPlatform: "darwin-x64",
    format: { kind: "mach-o", machine: "x64" },
  },
];
