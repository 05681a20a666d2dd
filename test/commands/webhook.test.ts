/** `webhook`, on the coordinator's own host: the whole way through the API to a real database and a real receiver. */
import { describe, expect, test } from "bun:test";
import {
  savedWebhookSchema,
  webhookDeliveryListSchema,
  webhookDeliverySchema,
  webhookSchema,
} from "../../src/api/webhooks.ts";
import { runCommand } from "../support/run-command.ts";
import { createTemporaryDirectory } from "../support/temporary-directory.ts";
import { openWebhookReceiver } from "../support/webhook-receiver.ts";

async function openHost() {
  const directory = await createTemporaryDirectory("webhook");
  return {
    file: (name: string) => directory.join(name),
    run: async (...words: readonly string[]) => await runCommand(["webhook", ...words, "--data-dir", directory.path]),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

describe("webhook", () => {
  test("set, show, test, deliveries, redeliver, remove", async () => {
    await using host = await openHost();
    let secret = "";
    await using receiver = openWebhookReceiver(() => secret);
    const set = await host.run("set", receiver.url, "--events", "rollout,outcome");
    expect([set.exitCode, set.stdout]).toEqual([0, expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=\n$/)]);
    expect(set.stderr).toContain(`the webhook of default sends rollout, outcome to ${receiver.url}`);
    secret = set.stdout.trim();

    const shown = await host.run("show");
    expect(shown.stdout).toBe(
      `workspace:     default\nurl:           ${receiver.url}\nevents:        rollout, outcome\n`,
    );
    const tried = await host.run("test", "--json");
    const delivery = webhookDeliverySchema.parse(JSON.parse(tried.stdout));
    expect([tried.exitCode, delivery.state, delivery.status]).toEqual([0, "delivered", 204]);
    expect(receiver.received).toMatchObject([{ id: delivery.id, isGenuine: true }]);

    receiver.answer = () => new Response(null, { status: 500 });
    const failed = await host.run("test");
    expect([failed.exitCode, failed.stdout]).toEqual([1, expect.stringContaining("given-up")]);
    expect(failed.stderr).toContain("cannot deliver to the webhook: it answered 500");
    receiver.answer = () => new Response();

    const listed = webhookDeliveryListSchema.parse(JSON.parse((await host.run("deliveries", "--json")).stdout));
    expect(listed.deliveries.map(({ state }) => state)).toEqual(["given-up", "delivered"]);
    const limited = await host.run("deliveries", "--limit", "1");
    expect(limited.stdout.split("\n")).toHaveLength(3);
    expect(limited.stdout).toMatch(/^ID +MADE +WHAT +STATE +ATTEMPTS +STATUS +TOOK +ERROR\n/);
    const again = await host.run("redeliver", listed.deliveries[0]?.id ?? "", "--json");
    expect(webhookDeliverySchema.parse(JSON.parse(again.stdout))).toMatchObject({ state: "delivered", attempts: 2 });

    const removed = await host.run("remove");
    expect([removed.exitCode, removed.stdout]).toEqual([0, ""]);
    const gone = await host.run("show");
    expect([gone.exitCode, gone.stderr]).toEqual([1, expect.stringContaining("cannot find the webhook of default")]);
  });

  test("a secret of one's own comes from a file, and is not shown", async () => {
    await using host = await openHost();
    const secret = Buffer.alloc(32, 5).toString("base64");
    await Bun.write(host.file("secret"), `${secret}\n`);
    await using receiver = openWebhookReceiver(() => secret);
    const set = await host.run("set", receiver.url, "--secret-file", host.file("secret"));
    expect([set.exitCode, set.stdout]).toEqual([0, ""]);
    expect((await host.run("test")).exitCode).toBe(0);
    expect(receiver.received[0]?.isGenuine).toBe(true);
    const shown = await host.run("show", "--json");
    expect(webhookSchema.parse(JSON.parse(shown.stdout)).events).toBeNull();
    expect(set.stderr + shown.stdout).not.toContain(secret);
    const another = savedWebhookSchema.parse(
      JSON.parse((await host.run("set", receiver.url, "--new-secret", "--json")).stdout),
    );
    expect(another.secret).toStartWith("whsec_");
    expect((await host.run("show")).stdout).toMatch(/\nold secret: {4}until 20\d\d-\d\d-\d\d [\d:]{8} UTC\n$/);
    expect((await host.run("test")).exitCode).toBe(0);
    expect(receiver.received.at(-1)?.isGenuine).toBe(true);
    const week = await host.run("set", receiver.url, "--old-secret-for", "7d");
    expect(week.stderr).toMatch(/the secret before signs as well until 20/);
    const only = await host.run("set", receiver.url, "--events", "agent");
    expect(only.stderr).toContain("sends agent to");
    expect((await host.run("set", receiver.url)).stderr).toContain("sends agent to");
    expect((await host.run("set", receiver.url, "--events", "all")).stderr).toContain("sends all changes to");
    expect((await host.run("set", receiver.url, "--old-secret-for", "none")).stderr).not.toContain("the secret before");
    await host.run("test");
    expect(receiver.received.at(-1)?.isGenuine).toBe(false);
  });

  test.each([
    [["set"], "URL is missing"],
    [["set", "hooks.example"], "it is no http:// or https:// address"],
    [["set", "https://hooks.example", "--events", "rollout,nothing"], "each is one of rollout, deployment, outcome"],
    [
      ["set", "https://hooks.example", "--secret-file", "x", "--new-secret"],
      "give one of --secret-file and --new-secret",
    ],
    [["set", "https://hooks.example", "--old-secret-for", "31d"], "it is at most 30d, or none"],
    [["set", "https://hooks.example", "--old-secret-for", "soon"], "a duration is written like"],
    [["set", "https://hooks.example", "--secret-file", "/absent/file"], "there is no such file"],
    [["redeliver", "x"], "an id has 16 lower-case letters and digits"],
    [["deliveries", "--limit", "0"], "--limit is a whole number from 1 to 200"],
  ])("%p is a usage error", async (words, text) => {
    const { exitCode, stderr } = await runCommand(["webhook", ...words, "--data-dir", "/absent"]);
    expect([exitCode, stderr]).toEqual([2, expect.stringContaining(text)]);
  });
});
