/**
 * The grammar of NARs as a machine over strings: it says what may come next and reports what it recognizes.
 *
 * It sees no bytes of files, no lengths on the wire and no padding: nar-reader.ts cuts the stream into strings and asks
 * this machine about each. The grammar itself stands in nar-format.ts. One arrow a string; a node ends at "close":
 *
 *   magic → open → type → node-type ─┬─ regular ───► content ─► (body) ───► close
 *                   ▲                │    └─► executable ─► contents-keyword ─► (body)
 *                   │                ├─ target ─► target-value ───► close
 *                   │                └─ entry-or-close ─┬─► the directory ends
 *                   └── node ◄─ name-value ◄─ name ◄─ entry-open
 *   after a node: end at the root, else close-entry → entry-or-close
 */
import { NixParseError, quoteExcerpt } from "../parse-error.ts";
import {
  describeNarNameFault,
  describeNarTargetFault,
  NAR_DEPTH_MAX,
  NAR_KEYWORD_LENGTH_MAX,
  NAR_NAME_LENGTH_MAX,
  NAR_TARGET_LENGTH_MAX,
} from "./nar-format.ts";

export type NarRegular = {
  readonly sizeBytes: number;
  readonly executable: boolean;
  /** Where the contents begin, bytes from the start of the NAR. */
  readonly narOffset: number;
};

/**
 * What a NAR contains, in its own order: a directory comes before its entries, `regular` before its data.
 *
 * Paths are relative to the root, which is the empty string; parts are joined by "/", one character per byte (latin1).
 * Whatever a handler throws ends the reading and reaches the caller of `push`.
 */
export type NarHandler = {
  directory(path: string): void;
  regular(path: string, file: NarRegular): void;
  /**
   * The next bytes of the file last reported; `sizeBytes` in all, never an empty chunk.
   * A view of what was pushed: copy it to keep it.
   */
  data(chunk: Uint8Array): void;
  symlink(path: string, target: string): void;
};

type State =
  | "magic"
  | "open"
  | "type"
  | "node-type"
  | "content"
  | "executable"
  | "contents-keyword"
  | "body"
  | "target"
  | "target-value"
  | "entry-or-close"
  | "entry-open"
  | "name"
  | "name-value"
  | "node"
  | "close"
  | "close-entry"
  | "end";

type OpenDirectory = { readonly path: string; lastName: string };

export class NarGrammar {
  private state: State = "magic";
  private path = "";
  private isExecutable = false;
  private readonly directories: OpenDirectory[] = [];
  private readonly handler: Partial<NarHandler>;

  constructor(handler: Partial<NarHandler>) {
    this.handler = handler;
  }

  get ended(): boolean {
    return this.state === "end";
  }

  /** Whether the next string is a file's contents: `acceptBody` then, and `endBody` after its last byte. */
  get wantsBody(): boolean {
    return this.state === "body";
  }

  /** How long the next string may be. */
  get textLengthMax(): number {
    switch (this.state) {
      case "name-value":
        return NAR_NAME_LENGTH_MAX;
      case "target-value":
        return NAR_TARGET_LENGTH_MAX;
      default:
        return NAR_KEYWORD_LENGTH_MAX;
    }
  }

  acceptBody(sizeBytes: number, narOffset: number): void {
    this.handler.regular?.(this.path, { sizeBytes, executable: this.isExecutable, narOffset });
  }

  endBody(): void {
    this.state = "close";
  }

  /** @throws NixParseError when `text` may not come here; `offset` is where it begins */
  acceptText(text: string, offset: number): void {
    this.state = this.stateAfter(text, offset);
  }

  private stateAfter(text: string, offset: number): State {
    switch (this.state) {
      case "magic":
        return expectKeyword("nix-archive-1", "open", text, offset);
      case "open":
        return expectKeyword("(", "type", text, offset);
      case "type":
        return expectKeyword("type", "node-type", text, offset);
      case "node-type":
        return this.acceptNodeType(text, offset);
      case "content":
        return this.acceptMarkerOrContents(text, offset);
      case "executable":
        return expectKeyword("", "contents-keyword", text, offset);
      case "contents-keyword":
        return expectKeyword("contents", "body", text, offset);
      case "target":
        return expectKeyword("target", "target-value", text, offset);
      case "target-value":
        return this.acceptTarget(text, offset);
      case "entry-or-close":
        return text === "entry" ? "entry-open" : this.endDirectory(text, offset);
      case "entry-open":
        return expectKeyword("(", "name", text, offset);
      case "name":
        return expectKeyword("name", "name-value", text, offset);
      case "name-value":
        return this.acceptName(text, offset);
      case "node":
        return expectKeyword("node", "open", text, offset);
      case "close":
        return expectKeyword(")", this.stateAfterNode(), text, offset);
      case "close-entry":
        return expectKeyword(")", "entry-or-close", text, offset);
      case "body":
      case "end":
        throw new NixParseError("NAR", `no text can come in state ${this.state}`, { offset });
      default:
        return this.state satisfies never;
    }
  }

  private acceptNodeType(text: string, offset: number): State {
    if (this.directories.length >= NAR_DEPTH_MAX) {
      throw new NixParseError("NAR", `directories are nested deeper than ${NAR_DEPTH_MAX}`, { offset });
    }
    switch (text) {
      case "regular":
        return "content";
      case "symlink":
        return "target";
      case "directory":
        this.directories.push({ path: this.path, lastName: "" });
        this.handler.directory?.(this.path);
        return "entry-or-close";
      default:
        throw new NixParseError("NAR", `unknown node type ${quoteExcerpt(text)}`, { offset });
    }
  }

  private acceptMarkerOrContents(text: string, offset: number): State {
    const isMarker = text === "executable";
    this.isExecutable = isMarker;
    return isMarker ? "executable" : expectKeyword("contents", "body", text, offset);
  }

  private acceptTarget(target: string, offset: number): State {
    const fault = describeNarTargetFault(target);
    if (fault !== null) {
      throw new NixParseError("NAR", fault, { offset });
    }
    this.handler.symlink?.(this.path, target);
    return "close";
  }

  private acceptName(name: string, offset: number): State {
    const directory = this.directories.at(-1);
    const fault = describeNarNameFault(name);
    if (fault !== null || directory === undefined) {
      throw new NixParseError("NAR", fault ?? "a name outside of a directory", { offset });
    }
    // One character is one byte, so this is the order of the bytes. Every name is greater than the empty one.
    if (name <= directory.lastName) {
      throw new NixParseError("NAR", `entry ${quoteExcerpt(name)} is a duplicate or out of order`, { offset });
    }
    directory.lastName = name;
    this.path = directory.path === "" ? name : `${directory.path}/${name}`;
    return "node";
  }

  private endDirectory(text: string, offset: number): State {
    this.directories.pop();
    return expectKeyword(")", this.stateAfterNode(), text, offset);
  }

  private stateAfterNode(): State {
    return this.directories.length === 0 ? "end" : "close-entry";
  }
}

function expectKeyword(keyword: string, next: State, text: string, offset: number): State {
  if (text !== keyword) {
    throw new NixParseError("NAR", `expected ${quoteExcerpt(keyword)}, got ${quoteExcerpt(text)}`, { offset });
  }
  return next;
}
