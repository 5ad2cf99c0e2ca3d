// Runs the scenario over gRPC.
import { createGrpcTransport } from "@connectrpc/connect-node";

import { scenario } from "./scenario.js";

await scenario(createGrpcTransport({ baseUrl: `http://${process.env.TANDEM_GRPC_ADDRESS}`, defaultTimeoutMs: 30_000 }));
console.log("typescript: 11 steps as expected");
