/** Completion in real shells: each is asked by its own completion function, with the compiled binary behind it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { symlink } from "node:fs/promises";
import { ensureDebianPackages } from "../support/debian.ts";
import { FAKE_TOKEN, type FakeCoordinator, startFakeCoordinator } from "../support/fake-coordinator.ts";
import { BINARY } from "../support/fleet.ts";
import { runProcess } from "../support/processes.ts";
import { createTemporaryDirectory, type TemporaryDirectory } from "../support/temporary-directory.ts";

let fake: FakeCoordinator;
let directory: TemporaryDirectory;

beforeAll(async () => {
  await ensureDebianPackages(["zsh", "fish"]);
  directory = await createTemporaryDirectory("completion");
  await symlink(BINARY, directory.join("nixdeploy"));
  await Bun.write(directory.join("closure.json"), "");
  await Bun.write(directory.join(".zshrc"), ZSHRC);
  fake = startFakeCoordinator();
  fake.addAgent("nuc");
  fake.addAgent("web-1", "offline");
}, 300_000);
afterAll(async () => {
  await fake[Symbol.asyncDispose]();
  await directory[Symbol.asyncDispose]();
});

/** readline's own view: the words that it breaks the line into, and the function that it calls. */
const BASH = `
source <(nixdeploy completion bash)
COMP_LINE=$1 COMP_POINT=\${#1}
line=\${1//=/ = }; line=\${line//:/ : }
read -ra COMP_WORDS <<< "$line"
[[ $1 == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
complete -p nixdeploy >&2
_nixdeploy nixdeploy
printf '%s\\n' "\${COMPREPLY[@]}"
`;

/** A shell at a terminal of its own, where TAB is typed; ^Xs shows the line. */
const ZSHRC = `
PS1=
unsetopt PROMPT_SP
autoload -U compinit; compinit -u -D
source <(nixdeploy completion zsh)
show() { print -r -- "LINE<$BUFFER>" }
zle -N show
bindkey "^Xs" show
zle-line-init() { print READY }
zle -N zle-line-init
`;
const ZSH = `
zmodload zsh/zpty
zpty shell zsh -i
zpty -r -m shell out '*READY*'
zpty -w -n shell "$1"$'\\t\\C-Xs'
zpty -r -m shell out '*LINE<*>*'
print -r -- "$out"
zpty -d shell
`;

const FISH = `source (nixdeploy completion fish | psub); complete -C $argv[1]`;

async function ask(shell: "bash" | "zsh" | "fish", line: string): Promise<string> {
  const command = {
    bash: ["bash", "--norc", "-c", BASH, "bash", line],
    zsh: ["zsh", "-f", "-c", ZSH, "zsh", line],
    fish: ["fish", "--no-config", "-c", FISH, line],
  }[shell];
  const env = {
    PATH: `${directory.path}:${process.env["PATH"] ?? ""}`,
    HOME: directory.path,
    ZDOTDIR: directory.path,
    TERM: "dumb",
    NIXDEPLOY_URL: fake.url,
    NIXDEPLOY_TOKEN: FAKE_TOKEN,
  };
  const { stdout, stderr } = await runProcess(command, { env, cwd: directory.path, timeoutMs: 20_000 });
  return shell === "zsh" ? (/LINE<([^>]*)>/.exec(stdout)?.[1] ?? `${stdout}${stderr}`) : stdout;
}

/** What is left of the line to write is one word; bash writes what stands behind the last = or : of it. */
const LINES: readonly (readonly [typed: string, bash: string, whole: string])[] = [
  ["nixdeploy stat", "status", "nixdeploy status"],
  ["nixdeploy agents ren", "rename", "nixdeploy agents rename"],
  ["nixdeploy agents remove n", "nuc", "nixdeploy agents remove nuc"],
  ["nixdeploy token create --ki", "--kind", "nixdeploy token create --kind"],
  ["nixdeploy token create --kind adm", "admin", "nixdeploy token create --kind admin"],
  ["nixdeploy token create --kind=adm", "admin", "nixdeploy token create --kind=admin"],
  ["nixdeploy push --cache ", "default", "nixdeploy push --cache default"],
  ["nixdeploy activate clos", "closure.json", "nixdeploy activate closure.json"],
  ["nixdeploy activate nu", "nuc=", "nixdeploy activate nuc="],
];

test.concurrent.each(LINES)("bash: %s", async (typed, expected) => {
  expect((await ask("bash", typed)).trim().split("\n")).toEqual([expected]);
});

test.concurrent.each(LINES)("zsh: %s", async (typed, _bash, whole) => {
  expect((await ask("zsh", typed)).trim()).toBe(whole);
});

test.concurrent.each(LINES)("fish: %s", async (typed, _bash, whole) => {
  const values = (await ask("fish", typed))
    .trim()
    .split("\n")
    .map((line) => line.split("\t")[0]);
  expect(values).toEqual([whole.split(" ").at(-1)]);
});

test("several: both agents, with what fish says of them", async () => {
  expect((await ask("bash", "nixdeploy agents remove ")).trim().split("\n")).toEqual(["nuc", "web-1"]);
  expect(await ask("fish", "nixdeploy agents remove ")).toBe("nuc\tonline\nweb-1\toffline\n");
});
