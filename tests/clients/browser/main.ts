// Serves the page from an origin of its own, opens it in Chromium and has it follow the scenario.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { chromium } from "playwright-core";

import { proxy } from "./proxy";

const DEADLINE_MS = 60_000;
// No calls home: the page's own are all that is wanted.
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"];

const script = readFileSync(new URL("page.js", import.meta.url));
const site = createServer((request, response) => {
  const wantsScript = request.url === "/page.js";
  response.writeHead(200, { "content-type": wantsScript ? "text/javascript" : "text/html" });
  response.end(wantsScript ? script : `<!doctype html><title>Scenario</title><script src="/page.js"></script>`);
});
await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));

const { TANDEM_GRPC_ADDRESS: grpc = "", TANDEM_REST_ADDRESS: rest = "", CHROMIUM: program = "/usr/bin/chromium" } =
  process.env;
const door = await proxy(rest);
const browser = await chromium.launch({ executablePath: program, args: QUIET });
const deadline = setTimeout(() => browser.close({ reason: `no end after ${DEADLINE_MS} ms` }), DEADLINE_MS);
try {
  const page = await browser.newPage();
  await page.exposeFunction("cutConnections", door.cut);
  await page.exposeFunction("mendConnections", door.mend);
  await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`);
  await page.evaluate(([grpc, rest]) => followScenario(grpc, rest), [grpc, door.address]);
  console.log(`browser: 15 steps as expected in Chromium ${browser.version()}`);
} finally {
  clearTimeout(deadline);
  await browser.close();
  door.close();
  site.close();
}
