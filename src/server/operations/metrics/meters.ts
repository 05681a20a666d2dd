/**
 * What is counted as it happens, since this process began. What can be asked of the database or of the system when
 * somebody looks stands in `snapshot.ts`.
 *
 * Labels come from lists that the program knows (route patterns, methods, kinds of frames), never from what is sent.
 */
import { createCounter, createHistogram, type Family } from "./exposition.ts";

export type AnsweredRequest = {
  readonly method: string;
  /** The pattern that the path fits, such as `/api/v1/rollouts/:id`; `(none)` when it fits none. */
  readonly route: string;
  readonly status: number;
  /** Until the head of the answer; a stream goes on after it. */
  readonly durationMs: number;
};

export type Meters = {
  request(answered: AnsweredRequest): void;
  frame(direction: "received" | "sent", kind: string): void;
  logLines(count: number): void;
  /** Of NAR files, counted when their answers begin. */
  servedBytes(count: number): void;
  /** Of NAR files, counted as they arrive. */
  uploadedBytes(count: number): void;
  /** How much later than due a timer ran. */
  eventLoopLag(lagMs: number): void;
  /** Credentials that were no good. */
  failedLogin(of: "request" | "agent"): void;
  /** One try of one delivery. */
  webhookAttempt(result: "delivered" | "failed"): void;
  /** Events that no receiver took in time. */
  webhookGivenUp(events: number): void;
  collect(): readonly Family[];
};

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const DURATION_BOUNDS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const LAG_BOUNDS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const REQUEST_SERIES_MAX = 500;
const FRAME_SERIES_MAX = 50;
const MS_PER_S = 1_000;

export function createMeters(): Meters {
  const requests = createHistogram({
    name: "nixdeploy_http_request_duration_seconds",
    help: "Time until the head of the answer, by route, method and class of status.",
    seriesMax: REQUEST_SERIES_MAX,
    bounds: DURATION_BOUNDS_S,
  });
  const frames = createCounter({
    name: "nixdeploy_agent_frames_total",
    help: "Frames of the agent protocol.",
    seriesMax: FRAME_SERIES_MAX,
  });
  const plain = (name: string, help: string) => {
    const counter = createCounter({ name, help, seriesMax: 4 });
    counter.add({}, 0);
    return counter;
  };
  const logLines = plain("nixdeploy_log_lines_total", "Log lines of deployments that were stored.");
  const served = plain("nixdeploy_cache_served_bytes_total", "Bytes of NAR files in answers that were begun.");
  const uploaded = plain("nixdeploy_cache_uploaded_bytes_total", "Bytes of NAR files that were taken in.");
  const failedLogins = createCounter({
    name: "nixdeploy_failed_logins_total",
    help: "Requests and agents' logins whose credential was no good.",
    seriesMax: 4,
  });
  const webhookAttempts = createCounter({
    name: "nixdeploy_webhook_attempts_total",
    help: "Tries to hand a delivery to a webhook's receiver, by result.",
    seriesMax: 2,
  });
  const webhookGivenUp = plain(
    "nixdeploy_webhook_events_given_up_total",
    "Events that no webhook's receiver took in time.",
  );
  const lag = createHistogram({
    name: "nixdeploy_event_loop_lag_seconds",
    help: "How much later than due a timer ran, looked at each second.",
    seriesMax: 1,
    bounds: LAG_BOUNDS_S,
  });
  return {
    request: ({ method, route, status, durationMs }) =>
      requests.observe(
        {
          route,
          method: METHODS.includes(method) ? method : "(other)",
          status: `${Math.floor(status / 100)}xx`,
        },
        durationMs / MS_PER_S,
      ),
    frame: (direction, kind) => frames.add({ direction, kind }),
    logLines: (count) => logLines.add({}, count),
    servedBytes: (count) => served.add({}, count),
    uploadedBytes: (count) => uploaded.add({}, count),
    eventLoopLag: (lagMs) => lag.observe({}, lagMs / MS_PER_S),
    failedLogin: (of) => failedLogins.add({ of }),
    webhookAttempt: (result) => webhookAttempts.add({ result }),
    webhookGivenUp: (events) => webhookGivenUp.add({}, events),
    collect: () =>
      [requests, frames, logLines, served, uploaded, failedLogins, webhookAttempts, webhookGivenUp, lag].map((each) =>
        each.collect(),
      ),
  };
}
