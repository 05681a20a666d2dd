/** The REST API as one Hono app. Opens no port: requests come from the listener, the control socket or a test. */
import type { MiddlewareHandler } from "hono";
import { NixdeployError } from "../errors.ts";
import { type Principal, refuseLogin } from "./access/authentication.ts";
import { createOpenApi } from "./openapi.ts";
import { formatProblem, problemResponse } from "./problem.ts";
import { createAgainRoutes } from "./routes/again.ts";
import { createAgentAdministrationRoutes } from "./routes/agent-administration.ts";
import { createAgentKeyRoutes } from "./routes/agent-keys.ts";
import { createAgentRoutes } from "./routes/agents.ts";
import { createAuditRoutes } from "./routes/audit.ts";
import { createCacheSettingsRoutes } from "./routes/cache-settings.ts";
import { createCacheRoutes } from "./routes/caches.ts";
import { atRoute, createRouter, type RouteEnv } from "./routes/context.ts";
import { createDeploymentRoutes } from "./routes/deployments.ts";
import { createEventRoutes } from "./routes/events.ts";
import { createForeignCacheRoutes } from "./routes/foreign-caches.ts";
import { createKeyVoucherRoutes } from "./routes/key-vouchers.ts";
import { answerHealth, answerMetrics, answerReadiness } from "./routes/operations.ts";
import { createRolloutPlanRoutes } from "./routes/rollout-plans.ts";
import { mountRoutes, type Route } from "./routes/route.ts";
import { createTokenRoutes } from "./routes/tokens.ts";
import { createWebhookRoutes } from "./routes/webhooks.ts";
import { createWorkspaceRoutes } from "./routes/workspaces.ts";
import type { Services } from "./services.ts";

const CONTROL: Principal = { kind: "control" };

/** Everything below `/api/v1`. */
export function createApiRoutes(services: Services): readonly Route[] {
  return [
    ...createTokenRoutes(services),
    ...createWorkspaceRoutes(services),
    ...createCacheSettingsRoutes(services),
    ...createForeignCacheRoutes(services),
    ...createKeyVoucherRoutes(services),
    ...createCacheRoutes(services),
    ...createAgentRoutes(services),
    ...createAgentAdministrationRoutes(services),
    ...createAgentKeyRoutes(services),
    ...createDeploymentRoutes(services),
    ...createRolloutPlanRoutes(services),
    ...createAgainRoutes(services),
    ...createEventRoutes(services),
    ...createWebhookRoutes(services),
    ...createAuditRoutes(services),
  ];
}

export function createApp(services: Services) {
  const app = createRouter();
  const routes = createApiRoutes(services);
  app.onError((error, context) => {
    // Nobody reads this answer. What was thrown is how the body broke off, and no fault of ours.
    if (context.req.raw.signal.aborted) return formatProblem({ title: "The client hung up", status: 400 });
    return problemResponse(error, { log: services.log, requestId: context.env.requestId });
  });
  app.notFound((context) =>
    formatProblem({ title: `There is nothing at ${new URL(context.req.url).pathname}`, status: 404 }),
  );
  app.get("/healthz", atRoute, answerHealth);
  app.get("/readyz", atRoute, async () => await answerReadiness(services));
  app.get("/openapi.json", atRoute, (context) =>
    context.json(createOpenApi(routes, { version: services.version, url: services.publicUrl() })),
  );
  app.get("/", atRoute, (context) =>
    context.text(
      `nixdeploy ${services.version} coordinator\n\nAgents, pushes and deployments are served here: see \`nixdeploy --help\`.\n`,
    ),
  );
  // What the URLs in our answers lead to, until there is a dashboard to show it.
  for (const kind of ["rollouts", "deployments"]) {
    app.get(`/${kind}/:id`, atRoute, (context) =>
      context.text(`To see this one: nixdeploy logs ${context.req.param("id").replaceAll(/[^0-9a-z]/g, "")}\n`),
    );
  }
  const authenticated = authenticate(services);
  app.get("/metrics", atRoute, authenticated, async (context) => await answerMetrics(services, context));
  const api = createRouter();
  api.use(authenticated);
  api.route("/", mountRoutes(routes, services.auditor));
  api.all("*", atRoute, (context) => {
    throw new NixdeployError("not-found", `cannot find ${new URL(context.req.url).pathname}: there is no such route`);
  });
  app.route("/api/v1", api);
  return app;
}

function authenticate(services: Services): MiddlewareHandler<RouteEnv> {
  return async (context, next) => {
    const authorization = context.req.header("authorization") ?? null;
    const { control, address } = context.env;
    const principal = control ? CONTROL : await services.authenticator.authenticate(authorization);
    if (principal === null) return refuseLogin(services, { authorization, address, scheme: "Bearer" });
    context.set("principal", principal);
    return await next();
  };
}
