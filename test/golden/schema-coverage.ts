/**
 * Whether samples show all that a schema allows: every field is there in one of them, every field that may be left out is
 * left out in one, every word of a list of words is said. Works on JSON Schema, which zod makes of its own.
 */
import { z } from "zod";

type Node = z.core.JSONSchema.BaseSchema;

/** What no sample shows, as paths such as `.state.labels (present)`. @param samples JSON values */
export function findUnshown(schema: z.ZodType, samples: readonly unknown[]): readonly string[] {
  const node = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return [...new Set(walk(node, samples, ""))];
}

function walk(node: Node, samples: readonly unknown[], path: string): readonly string[] {
  const alternatives = [...(node.anyOf ?? []), ...(node.oneOf ?? [])].filter(isNode);
  if (alternatives.length > 0) return alternatives.flatMap((each) => walkAlternative(each, samples, path));
  if (Array.isArray(node.type) && node.type.includes("null") && !samples.includes(null)) return [`${path} = null`];
  if (node.enum !== undefined) {
    return node.enum.filter((word) => !samples.includes(word)).map((word) => `${path} = ${JSON.stringify(word)}`);
  }
  if (node.type === "array" && isNode(node.items))
    return walk(node.items, samples.filter(Array.isArray).flat(), `${path}[]`);
  if (node.properties === undefined) return [];
  const objects = samples.filter(isObject);
  return Object.entries(node.properties)
    .filter((entry): entry is [string, Node] => isNode(entry[1]))
    .flatMap(([name, child]) => walkField({ node, name, child, objects, path: `${path}.${name}` }));
}

function walkField(field: {
  readonly node: Node;
  readonly name: string;
  readonly child: Node;
  readonly objects: readonly Readonly<Record<string, unknown>>[];
  readonly path: string;
}): readonly string[] {
  const { node, name, child, objects, path } = field;
  const isRequired = node.required?.includes(name) === true;
  const values = objects.filter((each) => Object.hasOwn(each, name)).map((each) => each[name]);
  if (values.length === 0) return [`${path} (present)`];
  const unshown = walk(child, values, path);
  return isRequired || values.length < objects.length ? unshown : [...unshown, `${path} (absent)`];
}

/** Of several shapes, one that is told apart by a word (`type`, `own`) sees only its own samples. */
function walkAlternative(node: Node, samples: readonly unknown[], path: string): readonly string[] {
  if (node.type === "null") return samples.includes(null) ? [] : [`${path} = null`];
  const [name, word] = findWord(node) ?? [];
  if (name === undefined) {
    return walk(
      node,
      samples.filter((sample) => sample !== null),
      path,
    );
  }
  return walk(
    node,
    samples.filter((sample) => isObject(sample) && sample[name] === word),
    `${path}<${String(word)}>`,
  );
}

/** The field that has only one value in this shape. */
function findWord({ properties = {} }: Node): readonly [name: string, word: unknown] | null {
  for (const [name, child] of Object.entries(properties)) {
    if (isNode(child) && child.const !== undefined) return [name, child.const];
  }
  return null;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
