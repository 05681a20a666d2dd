/** As many plain websockets as it is told, that send what a heartbeat is, as often. Says when all are open. */
import { setTimeout as sleep } from "node:timers/promises";
import { PING_INTERVAL_MS } from "../../src/protocol.ts";

const [port, count] = process.argv.slice(2);
const AT_ONCE = 500;
let opened = 0;
for (let made = 0; made < Number(count); made += 1) {
  while (made - opened >= AT_ONCE) await sleep(1);
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
  socket.onopen = () => {
    opened += 1;
    setInterval(() => socket.send('{"kind":"ping"}'), PING_INTERVAL_MS);
  };
}
while (opened < Number(count)) await sleep(10);
await Bun.write(Bun.stdout, "all are open\n");
