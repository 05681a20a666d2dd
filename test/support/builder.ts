/**
 * The "CI machine" of tests and demo: a machine (machine.ts) with a store of its own, that builds the fixtures of
 * test/fixtures/nix by real Nix, without nixpkgs and without internet.
 */
import { join } from "node:path";
import { createMachine, type Machine, type MachineOptions } from "./machine.ts";

/** The actions of switch-to-configuration, and "init": the system is booted. */
export type FixtureAction = "check" | "switch" | "boot" | "test" | "dry-activate" | "init" | "activate";

/** In the order in which they are reached; test/fixtures/nix/system/faults.sh and the fixtures say what is done by then. */
export type FaultStage =
  | "start"
  | "pre-switch-check"
  | "boot-loader"
  | "boot-loader-done"
  | "stop-units"
  | "activate"
  | "start-units"
  | "write-boundary"
  | "clean"
  | "link"
  | "end"
  | "init";

export type Fault = {
  readonly stage: FaultStage;
  /** Default: every action but "init". */
  readonly actions?: readonly FixtureAction[];
} & (
  | { readonly kind: "exit" | "print-lines" | "print-mebibytes"; readonly argument: number }
  /** The script sends it to itself: "KILL", "TERM", … */
  | { readonly kind: "signal"; readonly argument: string }
  /** Waits while the device has the file /run/hold/NAME (holds.ts). */
  | { readonly kind: "hold"; readonly argument: string }
  | { readonly kind: "hang" | "hang-ignoring-sigterm" | "close-output" }
  /** The step itself fails and the rest goes as in the real one: exit code 1, 1, 2 and a failed boot. */
  | { readonly kind: "fail"; readonly stage: "pre-switch-check" | "boot-loader" | "activate" | "init" | "end" }
);

export type FixtureUnit = {
  /** With its suffix: "web.service". */
  readonly name: string;
  /** Default: the system's. A unit whose version changed is a changed unit. */
  readonly version?: string;
  /** Shell text to run instead of the standard program, which writes its version to /run/units/NAME.version and waits. */
  readonly exec?: string;
  /** The lines of its section [Service], instead of any program of ours. */
  readonly service?: readonly string[];
  /** The whole unit file, instead of anything of ours. */
  readonly text?: string;
  /** Cannot start. */
  readonly fails?: boolean;
  /** NixOS' unit options; default true. */
  readonly restartIfChanged?: boolean;
  readonly stopIfChanged?: boolean;
  readonly stopOnRemoval?: boolean;
};

type WrongProgram = "not-executable" | "foreign";

/** What each fixture can be told, see the header of its Nix file. */
export type FixtureOptions = {
  /** leaf → lib → app; `bin/NAME` prints "NAME VERSION" through its references. 4 paths, 1 of them in every version. */
  readonly app: { readonly name: string; readonly version: string };
  /** A plain profile around an app: bin/NAME, share/version. */
  readonly profile: {
    readonly name: string;
    readonly version: string;
    /** One with faults, or none (default). Links ~/.NAME-VERSION to share/version, and removes the link of the old path. */
    readonly hook?: { readonly faults?: readonly Fault[]; readonly program?: WrongProgram | "dangling" | "outside" };
    /** Units of `systemd --user`, in share/systemd/user. */
    readonly units?: Readonly<Record<string, string>>;
  };
  /** The Home Manager generation. */
  readonly "home-manager": {
    readonly name: string;
    readonly version: string;
    readonly files?: Readonly<Record<string, string>>;
    readonly units?: Readonly<Record<string, string>>;
    /** Default 1. */
    readonly protocol?: 0 | 1;
    readonly packages?: boolean;
    readonly ignoresDryRun?: boolean;
    readonly program?: WrongProgram | "missing";
    readonly faults?: readonly Fault[];
  };
  /** The nix-darwin system. */
  readonly darwin: {
    readonly name: string;
    readonly version: string;
    readonly etc?: Readonly<Record<string, string>>;
    readonly daemons?: readonly string[];
    readonly userScript?: "none" | "real" | "deprecated";
    readonly platform?: string;
    readonly program?: WrongProgram | "missing";
    readonly faults?: readonly Fault[];
  };
  /** A deploy specification in the store, with references to what it names. */
  readonly spec: {
    readonly agents: Readonly<Record<string, string>>;
    readonly rollbackScript?: Readonly<Record<string, string>>;
  };
  /** A store path that is a file itself, as `writeShellScript` makes it; default executable. */
  readonly script: { readonly name: string; readonly text: string; readonly executable?: boolean };
  /** The NixOS-like system. */
  readonly system: {
    readonly name: string;
    readonly version: string;
    /** Default: one, NAME.service, of the system's version. */
    readonly units?: readonly FixtureUnit[];
    readonly kernelVersion?: string;
    readonly kernelParams?: string;
    /** A change of it makes `switch` and `test` end with 100. */
    readonly initInterfaceVersion?: string;
    /** A changed value makes `check`, `switch` and `test` end with 1. */
    readonly switchInhibitors?: Readonly<Record<string, string>>;
    /** How its entries are installed; default "none", a machine without a boot loader. See install-boot-loader.sh. */
    readonly bootLoader?: "none" | "systemd-boot" | "grub-saved" | "grub";
    /** One more store path in the closure, for example a generated one (closure.ts). */
    readonly payload?: string;
    readonly faults?: readonly Fault[];
    /** Who runs its units: a few shell functions (default), or systemd, which takes a box (systemd-box.ts). */
    readonly serviceManager?: "small" | "systemd";
    /** Variants of it, by name: what is different in each. Its version is VERSION-NAME unless told. */
    readonly specialisations?: Readonly<Record<string, Partial<Omit<FixtureOptions["system"], "specialisations">>>>;
    /** The platform that it says it is for; default the builder's. */
    readonly system?: string;
    /** What is wrong with bin/switch-to-configuration itself; default nothing. */
    readonly switchProgram?: "missing" | "not-executable" | "foreign";
  };
};

export type PathDetails = {
  readonly storePath: string;
  /** "sha256:<hex>", of the NAR. */
  readonly narHash: string;
  readonly narSizeBytes: number;
  readonly references: readonly string[];
};

export type SigningKey = {
  readonly secretKeyFile: string;
  /** "NAME:BASE64" */
  readonly publicKey: string;
};

export type Builder = Machine & {
  /** Builds a fixture and returns its store path. About 0.2 s. */
  build<K extends keyof FixtureOptions>(fixture: K, options: FixtureOptions[K]): Promise<string>;
  /** Every path of the closure with its size and references, as the store has them; references come before referrers. */
  closure(storePath: string): Promise<readonly PathDetails[]>;
  /** Makes a key as `nix-store --generate-binary-cache-key` does; the files are in the builder's directory. */
  generateKey(name: string): Promise<SigningKey>;
  /** Signs a whole closure in the builder's store. */
  sign(storePath: string, key: SigningKey): Promise<void>;
};

const FIXTURES = join(import.meta.dir, "../fixtures/nix");

export async function createBuilder(options: Omit<MachineOptions, "name"> & { name?: string }): Promise<Builder> {
  const machine = await createMachine({ name: "builder", ...options });
  // Two that open an empty store at the same moment make its folders both, and one of them fails.
  await machine.run(["nix-store", "--init"]);

  return {
    ...machine,
    build: (fixture, fixtureOptions) =>
      machine.run([
        ...["nix-build", "--no-out-link", "--quiet", join(FIXTURES, `${fixture}.nix`)],
        ...["--argstr", "options", JSON.stringify(fixtureOptions)],
      ]),
    closure: (storePath) => queryClosure(machine, storePath),
    generateKey: async (name) => {
      const secretKeyFile = join(machine.directory, `${name}.secret`);
      const publicKeyFile = join(machine.directory, `${name}.public`);
      await machine.run(["nix-store", "--generate-binary-cache-key", name, secretKeyFile, publicKeyFile]);
      return { secretKeyFile, publicKey: (await Bun.file(publicKeyFile).text()).trim() };
    },
    sign: async (storePath, key) => {
      await machine.run(["nix", "store", "sign", "--recursive", "--key-file", key.secretKeyFile, storePath]);
    },
  };
}

/** The closure of a path in any machine's store. */
export async function queryClosure(machine: Machine, storePath: string): Promise<readonly PathDetails[]> {
  const paths = (await machine.run(["nix-store", "--query", "--requisites", storePath])).split("\n");
  return parseDatabaseDump(await machine.run(["nix-store", "--dump-db", ...paths]));
}

/** `nix-store --dump-db`: path, hex hash, NAR size, deriver or empty, count, references, one a line. */
function parseDatabaseDump(dump: string): PathDetails[] {
  const lines = dump.split("\n");
  const take = () => {
    const line = lines.shift();
    if (line === undefined) throw new Error("cannot parse the output of nix-store --dump-db: it ends early");
    return line;
  };
  const details: PathDetails[] = [];
  while (lines.length > 0 && lines[0] !== "") {
    const storePath = take();
    const narHash = `sha256:${take()}`;
    const narSizeBytes = Number(take());
    take();
    const references = Array.from({ length: Number(take()) }, take);
    details.push({ storePath, narHash, narSizeBytes, references });
  }
  return details;
}
