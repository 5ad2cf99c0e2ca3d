// What the page does: the scenario over gRPC-Web, then the steps that only a browser has.
import { createClient, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { expect } from "../typescript/expect.js";
import { KvService } from "../typescript/generated/tandem/v1/kv_service_pb.js";
import { scenario } from "../typescript/scenario.js";

declare global {
  /** Cuts all connections to REST and holds new ones back. */
  function cutConnections(): Promise<void>;
  /** Lets connections to REST through again. */
  function mendConnections(): Promise<void>;
  /** The whole scenario; main.ts calls it. */
  var followScenario: (grpc: string, rest: string) => Promise<void>;
}

globalThis.followScenario = async (grpc, rest) => {
  const transport = createGrpcWebTransport({ baseUrl: `http://${grpc}`, defaultTimeoutMs: 30_000 });
  await browserSteps(transport, `http://${rest}`, await scenario(transport));
};

/** The messages of an EventSource, one after another. */
function messagesOf(source: EventSource): () => Promise<MessageEvent<string>> {
  const arrived: MessageEvent<string>[] = [];
  let wake = () => {};
  source.onmessage = (message) => {
    arrived.push(message);
    wake();
  };
  return async () => {
    while (arrived.length === 0) {
      await new Promise<void>((resolve) => (wake = resolve));
    }
    return arrived.shift()!;
  };
}

function expectChange(message: MessageEvent<string>, kind: string, key: string, revision: bigint) {
  const change = JSON.parse(message.data);
  expect(message.lastEventId === `${revision}` && change.revision === Number(revision), message.data);
  expect(change.events.length === 1 && change.events[0].kind === kind, change);
  expect(change.events[0].entry.key === key && change.events[0].entry.revision === Number(revision), change);
}

async function browserSteps(transport: Transport, rest: string, r9: bigint) {
  const store = createClient(KvService, transport);
  const put = async (key: string, value: string) => {
    const bytes = new TextEncoder();
    return (await store.put({ key: bytes.encode(key), value: bytes.encode(value) })).result!.revision;
  };

  // 12
  const source = new EventSource(`${rest}/v1/watch?prefix=fruit/&start_revision=${r9}`);
  let opened = 0;
  source.onopen = () => (opened += 1);
  const next = messagesOf(source);
  expectChange(await next(), "delete", "fruit/apple", r9);

  // 13
  await cutConnections();
  const r13 = await put("fruit/cherry", "black");
  await mendConnections();
  expectChange(await next(), "put", "fruit/cherry", r13);
  expect(opened === 2, opened);

  // 14
  const r14 = await put("fruit/date", "brown");
  expectChange(await next(), "put", "fruit/date", r14);
  source.close();

  // 15
  const there = await fetch(`${rest}/v1/kv/fruit/date`);
  expect(there.status === 200 && (await there.text()) === "brown", there.status);
  expect(there.headers.get("etag") === `"${r14}"`, [...there.headers]);
  const absent = await fetch(`${rest}/v1/kv/fruit/apple`);
  expect(absent.status === 404 && absent.headers.get("kv-reason") === "KEY_NOT_FOUND", [...absent.headers]);
}
