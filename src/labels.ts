/**
 * Labels of agents: `role=web`. The device gives its own (`nixdeploy agent --label`), the operator others
 * (`nixdeploy agents label`), which win key by key. Pure.
 */
import { z } from "zod";
import { quoteExcerpt } from "./nix/parse-error.ts";

export type Labels = Readonly<Record<string, string>>;

/** Of each side. */
export const LABELS_MAX = 32;

const KEY = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/;
const VALUE = /^[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,127}$/;

export const LABEL_KEY_RULE = "1 to 63 letters, digits, '.', '_', '/' or '-', starting with a letter or digit";
export const LABEL_VALUE_RULE = "1 to 128 letters, digits or any of '._/:@+-', starting with a letter or digit";

const keySchema = z.string().regex(KEY, `a key of a label has ${LABEL_KEY_RULE}`);
const valueSchema = z.string().regex(VALUE, `a value of a label has ${LABEL_VALUE_RULE}`);

export const labelsSchema = z
  .custom<Record<string, string>>(
    (value) => typeof value === "object" && value !== null && Object.keys(value).length <= LABELS_MAX,
    `expected an object with at most ${LABELS_MAX} labels`,
  )
  .pipe(z.record(keySchema, valueSchema));

/** What to do to labels: a value sets one, null takes it away. */
export const labelChangesSchema = z
  .custom<Record<string, string | null>>(
    (value) => typeof value === "object" && value !== null && Object.keys(value).length <= LABELS_MAX,
    `expected an object with at most ${LABELS_MAX} labels`,
  )
  .pipe(z.record(keySchema, valueSchema.nullable()));
export type LabelChanges = z.output<typeof labelChangesSchema>;

/** `KEY=VALUE`. @throws Error that says what it should look like */
export function parseLabel(text: string): { readonly key: string; readonly value: string } {
  const equals = text.indexOf("=");
  if (equals < 0) throw new Error(`${quoteExcerpt(text)} is no label: it must be KEY=VALUE`);
  return { key: parseLabelKey(text.slice(0, equals)), value: parseLabelValue(text.slice(equals + 1)) };
}

/** `KEY=VALUE` sets, `KEY-` takes away. @throws Error that says what it should look like */
export function parseLabelChange(text: string): { readonly key: string; readonly value: string | null } {
  if (!text.includes("=") && text.endsWith("-")) return { key: parseLabelKey(text.slice(0, -1)), value: null };
  if (!text.includes("="))
    throw new Error(`${quoteExcerpt(text)} is no change of a label: it must be KEY=VALUE or KEY-`);
  return parseLabel(text);
}

/** @throws Error */
export function parseLabelKey(text: string): string {
  if (!KEY.test(text)) throw new Error(`${quoteExcerpt(text)} is no key of a label: it must be ${LABEL_KEY_RULE}`);
  return text;
}

function parseLabelValue(text: string): string {
  if (!VALUE.test(text))
    throw new Error(`${quoteExcerpt(text)} is no value of a label: it must be ${LABEL_VALUE_RULE}`);
  return text;
}

/** The labels that count: the device's own, and over them the operator's. By key. */
export function mergeLabels(device: Labels, operator: Labels): Labels {
  const merged = { ...device, ...operator };
  return Object.fromEntries(Object.entries(merged).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** @returns null when there would be more than {@link LABELS_MAX} */
export function changeLabels(labels: Labels, changes: LabelChanges): Labels | null {
  const after = new Map(Object.entries(labels));
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) after.delete(key);
    else after.set(key, value);
  }
  return after.size > LABELS_MAX ? null : Object.fromEntries(after);
}

/** `role=web env=prod`, by key. */
export function formatLabels(labels: Labels): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}
