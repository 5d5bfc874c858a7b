// A TCP proxy in front of a server: connections through it can be stalled, so that bytes wait, and cut.
import { connect, createServer } from 'node:net'

export async function proxyTo(target, { host = '127.0.0.1', port = 0 } = {}) {
  const sockets = new Set()
  let isStalled = false
  const server = createServer((inner) => {
    const outer = connect(target.port, target.host)
    for (const [from, to] of [
      [inner, outer],
      [outer, inner],
    ]) {
      sockets.add(from)
      if (isStalled) from.pause()
      from.on('data', (bytes) => to.write(bytes))
      from.on('error', () => undefined)
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
    }
    if (isStalled) for (const socket of [inner, outer]) socket.pause()
  })
  await new Promise((done, fail) => server.once('error', fail).listen(port, host, done))
  return {
    address: `${host}:${server.address().port}`,
    /** Nothing passes until `resume`. */
    stall() {
      isStalled = true
      for (const socket of sockets) socket.pause()
    },
    resume() {
      isStalled = false
      for (const socket of sockets) socket.resume()
    },
    /** Ends every connection. */
    cut() {
      for (const socket of sockets) socket.destroy()
    },
    close() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
