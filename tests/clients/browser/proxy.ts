// A proxy in front of a server, whose connections the test cuts.
import { type AddressInfo, createServer, Socket } from "node:net";

export interface Proxy {
  /** Where it listens: host and port. */
  address: string;
  /** Cuts all connections and holds new ones back. */
  cut(): void;
  /** Lets connections through again. */
  mend(): void;
  close(): void;
}

export async function proxy(target: string): Promise<Proxy> {
  const [host, port] = target.split(":");
  const sockets = new Set<Socket>();
  let mend = () => {};
  let mended = Promise.resolve();

  const server = createServer(async (incoming) => {
    const onward = new Socket();
    for (const [socket, other] of [
      [incoming, onward],
      [onward, incoming],
    ]) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    await mended;
    if (!incoming.destroyed) {
      onward.connect(Number(port), host);
      incoming.pipe(onward).pipe(incoming);
    }
  });
  const cut = () => {
    mended = new Promise((resolve) => (mend = resolve));
    sockets.forEach((socket) => socket.destroy());
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut,
    mend: () => mend(),
    close: () => {
      server.close();
      sockets.forEach((socket) => socket.destroy());
    },
  };
}
