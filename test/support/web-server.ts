/** A web server that answers everything with one status: `bun web-server.ts PORT STATUS`. For units of test systems. */
const [port = 0, status = 200] = process.argv.slice(2).map(Number);
Bun.serve({ hostname: "127.0.0.1", port, fetch: () => new Response("here", { status }) });
