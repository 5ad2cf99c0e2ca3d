// The scenario of ../README.md by the TypeScript client, over the transport that it is given.
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";

import { expect, refused } from "./expect.js";
import { type Entry, KeyRangeSchema } from "./generated/tandem/v1/entry_pb.js";
import { KvService } from "./generated/tandem/v1/kv_service_pb.js";
import { EventKind, type WatchResponse } from "./generated/tandem/v1/watch_pb.js";
import { Durability } from "./generated/tandem/v1/write_pb.js";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array) => new TextDecoder("latin1").decode(bytes);

function expectEntry(
  entry: Entry | undefined,
  key: string,
  value: string,
  revision: bigint,
  createRevision: bigint,
  version: bigint,
) {
  expect(entry !== undefined && text(entry.key) === key && text(entry.value) === value, entry);
  expect(entry.revision === revision && entry.createRevision === createRevision, entry);
  expect(entry.version === version, entry);
}

/** Reads a watch up to its next change, which is alone in its message. */
async function expectNextChange(
  watch: AsyncIterator<WatchResponse>,
  kind: EventKind,
  key: string,
  value: string,
  revision: bigint,
) {
  let message: WatchResponse;
  do {
    message = (await watch.next()).value;
  } while (message.events.length === 0);
  const [event] = message.events;
  const entry = event.entry;
  expect(message.events.length === 1 && event.kind === kind && message.revision === revision, message);
  expect(entry !== undefined && text(entry.key) === key && text(entry.value) === value, message);
  expect(entry.revision === revision, message);
}

/** Every step, in its order; hands back R9. */
export async function scenario(transport: Transport): Promise<bigint> {
  const store = createClient(KvService, transport);
  const apple = bytes("fruit/apple");
  const leek = bytes("vegetable/leek");
  const fruit = create(KeyRangeSchema, { kind: { case: "prefix", value: bytes("fruit/") } });

  // 1
  const first = await store.put({ key: apple, value: bytes("red"), contentType: "text/plain" });
  const r1 = first.result!.revision;
  expect(first.created && first.version === 1n && r1 > 0n, first);
  expect(first.result!.durability === Durability.FSYNCED, first);

  // 2
  const ifAbsent = [{ kind: { case: "exists", value: false } as const }];
  await refused(
    store.put({ key: apple, value: bytes("blue"), conditions: ifAbsent }),
    Code.AlreadyExists,
    "KEY_EXISTS",
    { current_revision: `${r1}`, outcome: "NOT_APPLIED" },
  );

  // 3
  const ifR1 = [{ kind: { case: "revision", value: r1 } as const }];
  const swapped = await store.put({ key: apple, value: bytes("green"), conditions: ifR1, returnPrevious: true });
  const r3 = swapped.result!.revision;
  expect(!swapped.created && swapped.version === 2n && r3 > r1, swapped);
  expectEntry(swapped.previous, "fruit/apple", "red", r1, r1, 1n);
  expect(swapped.previous!.contentType === "text/plain", swapped);

  // 4
  await refused(
    store.put({ key: apple, value: bytes("blue"), conditions: ifR1 }),
    Code.Aborted,
    "CONDITION_FAILED",
    { current_revision: `${r3}`, outcome: "NOT_APPLIED" },
  );

  // 5
  const white = await store.put({ key: leek, value: bytes("white") });
  const lastKey = await store.put({ key: Uint8Array.of(...bytes("fruit/"), 0xff) });
  const banana = await store.put({ key: bytes("fruit/banana"), value: bytes("yellow") });
  expect(white.created && lastKey.created && banana.created, banana);
  const r5 = banana.result!.revision;
  const r5Before = lastKey.result!.revision;

  // 6
  const found: Entry[] = [];
  for await (const batch of store.scan({ range: fruit })) {
    expect(batch.storeRevision >= r5, batch);
    found.push(...batch.entries);
  }
  expect(found.length === 3, found);
  expectEntry(found[0], "fruit/apple", "green", r3, r1, 2n);
  expectEntry(found[1], "fruit/banana", "yellow", r5, r5, 1n);
  expectEntry(found[2], "fruit/\xff", "", r5Before, r5Before, 1n);

  // 7
  const watching = new AbortController();
  const watch = store.watch({ range: fruit, startRevision: r5 }, { signal: watching.signal })[Symbol.asyncIterator]();
  await expectNextChange(watch, EventKind.PUT, "fruit/banana", "yellow", r5);

  // 8
  const gold = await store.put({ key: apple, value: bytes("gold") });
  const purple = await store.put({ key: leek, value: bytes("purple") });
  expect(!gold.created && gold.version === 3n && !purple.created && purple.version === 2n, gold);
  const r8 = gold.result!.revision;

  // 9
  const removed = await store.delete({ key: apple, returnPrevious: true });
  const r9 = removed.result!.revision;
  expect(r9 > r8, removed);
  expectEntry(removed.previous, "fruit/apple", "gold", r8, r1, 3n);

  // 10
  await expectNextChange(watch, EventKind.PUT, "fruit/apple", "gold", r8);
  await expectNextChange(watch, EventKind.DELETE, "fruit/apple", "", r9);
  watching.abort();
  const end = await watch.next().catch((error: unknown) => error);
  expect(end instanceof ConnectError && end.code === Code.Canceled, end);

  // 11
  const metadata = await refused(store.get({ key: apple }), Code.NotFound, "KEY_NOT_FOUND");
  expect(BigInt(metadata.store_revision) >= r9, metadata);
  return r9;
}
