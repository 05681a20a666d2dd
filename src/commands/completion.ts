/** `nixdeploy completion`: what makes a shell complete our command lines. */
import { defineNixdeployCommand } from "./command-line/args.ts";
import { COMPLETION_SCRIPTS } from "./completion-scripts.ts";

const SHELLS = ["bash", "zsh", "fish"] as const;

export const command = defineNixdeployCommand({
  name: "completion",
  summary: "Print what makes a shell complete nixdeploy's command lines",
  details:
    "Commands, flags and their values; names of agents, workspaces, caches, rollouts and tokens are asked of the coordinator " +
    "that a command would use, which has 1.5 s to answer.",
  examples: [
    { comment: "bash, in ~/.bashrc", command: "source <(nixdeploy completion bash)" },
    { comment: "zsh, in ~/.zshrc behind compinit", command: "source <(nixdeploy completion zsh)" },
    { comment: "fish, in ~/.config/fish/config.fish", command: "nixdeploy completion fish | source" },
  ],
  args: {},
  positionals: {
    shell: { label: SHELLS.join("|"), description: "For which shell", required: true, parse: parseShell },
  },
  async run({ args, context }) {
    await context.stdout.write(COMPLETION_SCRIPTS[args.shell]);
  },
});

function parseShell(text: string): (typeof SHELLS)[number] {
  const shell = SHELLS.find((each) => each === text);
  if (shell === undefined) throw new Error(`it is one of ${SHELLS.join(", ")}`);
  return shell;
}
