/** The way from "git and npm" to a running script, with an npm and a Bun of our own making: no network. */
import { afterAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const SCRIPTS = join(import.meta.dir, "../../scripts");
const PLATFORMS = [
  "linux-x64",
  "linux-x64-musl",
  "linux-aarch64",
  "linux-aarch64-musl",
  "darwin-x64",
  "darwin-aarch64",
];
const NODE = Bun.which("node") ?? "node";

const FAKE_BUN = `#!/bin/sh
case "$1" in
  --version) echo 9.9.9 ;;
  install) echo "$@" >>"$FAKE_LOG"; echo "error: $FAKE_INSTALL_ERROR" >&2; [ -z "$FAKE_INSTALL_ERROR" ] ;;
  *)
    echo "ran $*"
    [ -z "$FAKE_WAIT" ] || exec sleep 60
    exit 7
    ;;
esac
`;
const FAKE_NPM = `#!/bin/sh
echo npm "$@" >>"$FAKE_LOG"
if [ -n "$FAKE_NPM_ERROR" ]; then
  printf 'npm ERR! code %s\\nnpm ERR! errno %s\\n' "$FAKE_NPM_ERROR" "$FAKE_NPM_ERROR" >&2
  exit 1
fi
cp "$FAKE_TARBALL" "$4/package.tgz"
`;

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) {
    rmSync(folder, { recursive: true, force: true });
  }
});

function writeProgram(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

type CheckoutOptions = {
  readonly integrity?: string;
  readonly version?: string;
  readonly platforms?: readonly string[];
};

/** A checkout with nothing installed, and the npm that it would find. */
function createCheckout({ integrity, version = "9.9.9", platforms = PLATFORMS }: CheckoutOptions = {}) {
  const folder = mkdtempSync(join(tmpdir(), "nixdeploy-bootstrap-"));
  folders.push(folder);
  const root = join(folder, "checkout");
  mkdirSync(join(root, "scripts"), { recursive: true });
  for (const name of ["bootstrap.mjs", "bun-package.mjs"]) cpSync(join(SCRIPTS, name), join(root, "scripts", name));
  writeProgram(join(folder, "package/bin/bun"), FAKE_BUN);
  writeProgram(join(folder, "bin/npm"), FAKE_NPM);
  const tarball = join(folder, "bun.tgz");
  Bun.spawnSync(["tar", "-czf", tarball, "-C", folder, "package/bin/bun"]);
  const actual = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
  const lines = platforms.map((platform) => {
    const name = `@oven/bun-${platform}`;
    return `    "${name}": ["${name}@${version}", "", { "os": "x", "cpu": "y" }, "${integrity ?? actual}"],\n`;
  });
  writeFileSync(join(root, "bun.lock"), `{\n  "packages": {\n${lines.join("\n")}  }\n}\n`);
  return { root, log: join(folder, "log"), tarball, path: `${join(folder, "bin")}:/usr/bin:/bin` };
}

type Checkout = ReturnType<typeof createCheckout>;

function start({ root, log, tarball, path }: Checkout, args: readonly string[], env: Record<string, string> = {}) {
  return Bun.spawn([NODE, join(root, "scripts/bootstrap.mjs"), ...args], {
    cwd: "/",
    env: { PATH: path, FAKE_LOG: log, FAKE_TARBALL: tarball, ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}

async function run(checkout: Checkout, args: readonly string[] = ["test"], env: Record<string, string> = {}) {
  const child = start(checkout, args, env);
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, exitCode };
}

function leftovers({ root }: Checkout): string[] {
  const toolchain = join(root, ".toolchain");
  return existsSync(toolchain) ? readdirSync(toolchain) : [];
}

test("gets Bun, installs, runs the script, and ends as it ends", async () => {
  const checkout = createCheckout();
  const { stdout, stderr, exitCode } = await run(checkout, ["test", "a b", "--x"]);
  expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 7 });
  expect(stdout).toMatch(/^bootstrap: getting Bun 9\.9\.9 for \S+ from the npm registry\n/);
  expect(stdout).toEndWith(`ran ${checkout.root}/scripts/test.ts a b --x\n`);
  expect(leftovers(checkout)).toEqual([expect.stringMatching(/^bun-9\.9\.9-/)]);
  expect(readFileSync(checkout.log, "utf8")).toContain("\ninstall --frozen-lockfile\n");
});

test("the second run does not need npm", async () => {
  const checkout = createCheckout();
  await run(checkout);
  const { stdout, exitCode } = await run(checkout, ["demo"], { FAKE_NPM_ERROR: "ENOTFOUND" });
  expect(exitCode).toBe(7);
  expect(stdout).toEndWith(`ran ${checkout.root}/scripts/demo.ts\n`);
});

test("a signal reaches the script, and its end is ours", async () => {
  const child = start(createCheckout(), ["test"], { FAKE_WAIT: "1" });
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    if (decoder.decode(chunk).includes("ran ")) {
      break;
    }
  }
  child.kill("SIGTERM");
  expect(await child.exited).toBe(128 + 15);
});

const FAILURES: readonly (readonly [what: string, CheckoutOptions, env: Record<string, string>, message: string])[] = [
  ["another tarball", { integrity: `sha512-${"A".repeat(86)}==` }, {}, "is not the sha512-AAAA"],
  ["another version", { version: "8.8.8" }, {}, "cannot run Bun 8.8.8 on this machine"],
  ["a platform that is not locked", { platforms: [] }, {}, "bun.lock does not list @oven/bun-"],
  ["no network", {}, { FAKE_NPM_ERROR: "ENOTFOUND" }, "the npm registry cannot be reached (ENOTFOUND)"],
  ["a registry without it", {}, { FAKE_NPM_ERROR: "E404" }, "cannot download @oven/bun-"],
  [
    "dependencies that fail",
    {},
    { FAKE_INSTALL_ERROR: "no space" },
    "cannot install the dependencies: error: no space",
  ],
];
for (const [what, options, env, message] of FAILURES) {
  test(`${what}: one line that says so`, async () => {
    const checkout = createCheckout(options);
    const { stdout, stderr, exitCode } = await run(checkout, ["test"], env);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^bootstrap: [^\n]+\n$/);
    expect(stderr).toContain(message);
    expect(stdout).not.toContain("ran ");
    expect(leftovers(checkout).filter((name) => !name.startsWith("bun-9.9.9-"))).toEqual([]);
  });
}

test("no npm: one line that says so", async () => {
  const checkout = createCheckout();
  const { stderr, exitCode } = await run({ ...checkout, path: join(checkout.root, "empty") });
  expect({ stderr, exitCode }).toEqual({ stderr: "bootstrap: cannot run npm: it is not in PATH\n", exitCode: 1 });
});

test("another script: usage", async () => {
  const { stderr, exitCode } = await run(createCheckout(), ["../evil"]);
  expect({ stderr, exitCode }).toEqual({
    stderr: "bootstrap: usage: node scripts/bootstrap.mjs test|demo|release|bench [ARGUMENT…]\n",
    exitCode: 1,
  });
});
