// What the steps check with, in Node.js as in a page.
import { Code, ConnectError } from "@connectrpc/connect";

import { ErrorInfoSchema } from "./generated/google/rpc/error_details_pb.js";

/** Ends the scenario where something is not as it should be. */
export function expect(holds: boolean, found: unknown): asserts holds {
  if (!holds) {
    const text = JSON.stringify(found, (_, value) => (typeof value === "bigint" ? value.toString() : value));
    throw new Error(`found ${found instanceof Error ? found.message : text}`);
  }
}

/** Checks a refusal whole; hands back its metadata. */
export async function refused(
  call: Promise<unknown>,
  code: Code,
  reason: string,
  metadata: Record<string, string> = {},
): Promise<Record<string, string>> {
  const error = await call.then(
    (answer) => new Error(`an answer instead of ${reason}: ${Object.keys(answer as object)}`),
    (error: unknown) => error,
  );
  expect(error instanceof ConnectError && error.code === code, error);
  expect(error.rawMessage.startsWith(`${reason}: `), error.rawMessage);
  const infos = error.findDetails(ErrorInfoSchema);
  expect(infos.length === 1 && infos[0].reason === reason && infos[0].domain === "tandem", infos);
  for (const [key, value] of Object.entries(metadata)) {
    expect(infos[0].metadata[key] === value, infos);
  }
  return infos[0].metadata;
}
