/**
 * Runs a composite action as GitHub's runner does, as far as action.yml goes: expressions, conditions, files for outputs,
 * environment and PATH, bash with its flags. Whatever the action uses beyond that is an error. It reads the file itself.
 */
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { Machine } from "./machine.ts";

const stepSchema = z.strictObject({
  id: z.string(),
  if: z.string().optional(),
  shell: z.literal("bash"),
  env: z.record(z.string(), z.string()).default({}),
  run: z.string(),
});
const described = z.looseObject({ description: z.string() });
const actionSchema = z.looseObject({
  name: z.string(),
  description: z.string(),
  inputs: z.record(z.string(), described.extend({ default: z.coerce.string().optional() })),
  outputs: z.record(z.string(), described.extend({ value: z.string() })),
  runs: z.strictObject({ using: z.literal("composite"), steps: z.array(stepSchema) }),
});
export type Action = z.output<typeof actionSchema>;

export async function readAction(file: string): Promise<Action> {
  return actionSchema.parse(Bun.YAML.parse(await readFile(file, "utf8")));
}

export type ActionRun = {
  readonly exitCode: number;
  readonly outputs: Readonly<Record<string, string>>;
  /** Steps that were run. */
  readonly steps: readonly string[];
  /** Everything that was printed. */
  readonly text: string;
  /** What the job's next steps have. */
  readonly env: Readonly<Record<string, string>>;
};

export type ActionOptions = {
  readonly file: string;
  /** The job's machine. */
  readonly machine: Machine;
  readonly inputs: Readonly<Record<string, string>>;
  /** Of the job. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where a folder for this job is made. */
  readonly directory: string;
  /** What was checked out, where the steps run; default: that folder. */
  readonly checkout?: string;
};

export async function runAction({ file, machine, directory, ...options }: ActionOptions): Promise<ActionRun> {
  const action = await readAction(file);
  const unknown = Object.keys(options.inputs).filter((name) => action.inputs[name] === undefined);
  if (unknown.length > 0) throw new Error(`the action has no input ${unknown.join(", ")}`);
  const defaults = Object.entries(action.inputs).map(([name, input]) => [`inputs.${name}`, input.default ?? ""]);
  const given = Object.entries(options.inputs).map(([name, value]) => [`inputs.${name}`, value]);
  const known = new Map<string, string>([
    ...[...defaults, ...given].map(([name = "", value = ""]) => [name, value] as const),
    ["github.action_path", dirname(file)],
    ["github.server_url", "https://github.example.org"],
    ["github.action_repository", "someone/nixdeploy"],
  ]);
  const folder = await mkdtemp(join(directory, "job-"));
  const temp = join(folder, "temp");
  await mkdir(temp);
  let env: Record<string, string> = {
    ...machine.environment,
    RUNNER_TEMP: temp,
    GITHUB_ACTIONS: "true",
    ...options.env,
  };
  const steps: string[] = [];
  let text = "";
  let exitCode = 0;
  for (const step of action.runs.steps) {
    if (exitCode !== 0 || (step.if !== undefined && !isTrue(evaluate(step.if, known)))) continue;
    steps.push(step.id);
    const files = Object.fromEntries(
      ["OUTPUT", "ENV", "PATH", "STEP_SUMMARY"].map((name) => [`GITHUB_${name}`, join(folder, `${step.id}-${name}`)]),
    );
    for (const path of Object.values(files)) await writeFile(path, "");
    const script = join(folder, `${step.id}.sh`);
    await writeFile(script, step.run);
    const own = Object.fromEntries(Object.entries(step.env).map(([name, value]) => [name, fill(value, known)]));
    const result = await machine.exec(["bash", "--noprofile", "--norc", "-eo", "pipefail", script], {
      ...{ env: { ...env, ...files, ...own }, cwd: options.checkout ?? folder, timeoutMs: 110_000 },
    });
    text += result.stdout + result.stderr;
    exitCode = result.exitCode ?? -1;
    const read = async (name: string) => await readFile(files[`GITHUB_${name}`] ?? "", "utf8");
    for (const [name, value] of parseValues(await read("OUTPUT"))) known.set(`steps.${step.id}.outputs.${name}`, value);
    const paths = (await read("PATH")).split("\n").filter((line) => line !== "");
    env = { ...env, ...Object.fromEntries(parseValues(await read("ENV"))) };
    env = { ...env, PATH: [...paths.reverse(), env["PATH"] ?? ""].join(":") };
  }
  const outputs = Object.entries(action.outputs).map(([name, { value }]) => [name, fill(value, known)]);
  return { exitCode, steps, text, env, outputs: Object.fromEntries(outputs) };
}

/** Lines NAME=VALUE, and NAME<<END … END. */
function parseValues(text: string): (readonly [name: string, value: string])[] {
  const values: (readonly [string, string])[] = [];
  const lines = text.split("\n");
  for (let line = lines.shift(); line !== undefined; line = lines.shift()) {
    const [, name, end] = /^([\w-]+)<<(.+)$/.exec(line) ?? [];
    const at = line.indexOf("=");
    if (name !== undefined && end !== undefined) {
      const length = lines.indexOf(end);
      if (length < 0) throw new Error(`${name} has no end`);
      values.push([
        name,
        lines
          .splice(0, length + 1)
          .slice(0, -1)
          .join("\n"),
      ]);
    } else if (at > 0) {
      values.push([line.slice(0, at), line.slice(at + 1)]);
    } else if (line !== "") {
      throw new Error(`a line that is no value: ${line}`);
    }
  }
  return values;
}

function fill(text: string, known: ReadonlyMap<string, string>): string {
  return text.replaceAll(/\$\{\{(.*?)\}\}/g, (_, expression: string) => evaluate(expression, known));
}

const isTrue = (value: string) => value !== "" && value !== "false";

/** `||` of `&&` of comparisons of names and 'texts'. A name that is not known is empty, as it is there. */
function evaluate(expression: string, known: ReadonlyMap<string, string>): string {
  const either = expression.split("||");
  if (either.length > 1) return either.map((one) => evaluate(one, known)).find(isTrue) ?? "";
  const both = expression.split("&&").map((one) => one.trim());
  if (both.length > 1) return String(both.every((one) => isTrue(evaluate(one, known))));
  const [, left, operator, right] = /^(\S+) (==|!=) (\S+)$/.exec(both[0] ?? "") ?? [];
  if (left !== undefined && right !== undefined) {
    return String((lookUp(left, known) === lookUp(right, known)) === (operator === "=="));
  }
  return lookUp(both[0] ?? "", known);
}

function lookUp(word: string, known: ReadonlyMap<string, string>): string {
  const [, text] = /^'([^']*)'$/.exec(word) ?? [];
  if (text !== undefined) return text;
  if (!/^(?:inputs|github|steps)\.[\w.-]+$/.test(word)) throw new Error(`this runner does not know ${word}`);
  const value = known.get(word);
  if (value === undefined && !word.startsWith("steps.")) throw new Error(`there is no ${word}`);
  return value ?? "";
}
