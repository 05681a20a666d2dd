/**
 * The least that a websocket server of this runtime can be: takes connections, answers each text. A program of its own,
 * started on the coordinator's core; prints its port.
 */
export const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: (request, bun) => (bun.upgrade(request) ? undefined : new Response("websockets only", { status: 426 })),
  websocket: {
    idleTimeout: 60,
    perMessageDeflate: false,
    message(socket) {
      socket.send('{"kind":"pong"}');
    },
  },
});
await Bun.write(Bun.stdout, `${server.port}\n`);
