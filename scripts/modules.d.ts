/** Types of what is plain JavaScript, because Node runs it before anything is installed. */

declare module "*/bun-package.mjs" {
  export const ROOT: string;

  export class BunPackageError extends Error {}

  export type EnsureBunOptions = {
    /** As in `@oven/bun-linux-x64-musl`, best first. */
    readonly platforms: readonly string[];
    readonly say: (text: string) => void;
    /** Throws for a Bun that is of no use here. Not called for one that is there already. */
    readonly check?: (bun: string, version: string) => void;
  };

  /** The path of the pinned, verified Bun. @throws BunPackageError */
  export function ensureBun(options: EnsureBunOptions): string;
}
