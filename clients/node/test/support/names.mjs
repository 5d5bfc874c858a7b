// A name server over UDP that resolves every name to the addresses it has now.
import { createSocket } from 'node:dgram'

export async function nameServer(addresses) {
  const socket = createSocket('udp4')
  const server = { addresses, queries: 0 }
  socket.on('message', (query, { port, address }) => {
    let end = 12
    while (query[end] !== 0) end += query[end] + 1
    end += 5
    const isForAddress = query.readUInt16BE(end - 4) === 1
    if (isForAddress) server.queries += 1
    const found = isForAddress ? server.addresses : []
    const records = found.map((each) => Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...each.split('.').map(Number)]))
    // Without addresses the name does not exist.
    const flags = [0x85, server.addresses.length === 0 ? 0x83 : 0x80]
    const counts = Buffer.from([0, 1, 0, found.length, 0, 0, 0, 0])
    socket.send(Buffer.concat([query.subarray(0, 2), Buffer.from(flags), counts, query.subarray(12, end), ...records]), port, address)
  })
  await new Promise((done) => socket.bind(0, '127.0.0.1', done))
  server.port = socket.address().port
  server.stop = () => new Promise((done) => socket.close(done))
  return server
}

/** A port that is free at all of these addresses. */
export async function commonPort(addresses) {
  const { createServer } = await import('node:net')
  const listen = (port, host) =>
    new Promise((done, fail) => {
      const server = createServer().once('error', fail)
      server.listen(port, host, () => done(server))
    })
  for (;;) {
    const servers = [await listen(0, addresses[0])]
    const { port } = servers[0].address()
    try {
      for (const address of addresses.slice(1)) servers.push(await listen(port, address))
      return port
    } catch {
      continue
    } finally {
      for (const server of servers) await new Promise((done) => server.close(done))
    }
  }
}
