// The fake providers, behind a front that keeps every request as it came over the wire.
//
// Prints {"port": …} when it is ready, and ends when its standard input does. Tests drive it by
//   POST /__wire/script    a JSON list of aimock fixtures, in place of the earlier ones; forgets the requests
//   GET  /__wire/requests  [{path, headers, body}] in the order of arrival
import http from "node:http";
import { LLMock } from "@copilotkit/aimock";

const mock = new LLMock({ port: 0, host: "127.0.0.1" });
await mock.start();

let requests = [];

async function read(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

function reply(response, value) {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

const front = http.createServer(async (request, response) => {
  const body = await read(request);
  if (request.url === "/__wire/requests") return reply(response, requests);
  if (request.url === "/__wire/script") {
    mock.reset();
    mock.addFixturesFromJSON(body.toString());
    requests = [];
    return reply(response, {});
  }
  requests.push({ path: request.url, headers: request.headers, body: JSON.parse(body.toString() || "null") });
  forward(request, body, response);
});

// Groq answers with a service_tier, the fake does not, and litellm insists on it.
const GROQ = "/groq";

function forward(request, body, response) {
  const groq = request.url.startsWith(GROQ);
  const path = groq ? request.url.slice(GROQ.length) : request.url;
  const to = { host: "127.0.0.1", port: mock.port, agent: false, path };
  const onward = http.request(
    { ...to, method: request.method, headers: request.headers },
    async (answer) => {
      const json = (answer.headers["content-type"] ?? "").includes("application/json");
      if (!(groq && json && answer.statusCode === 200)) {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
        answer.on("error", () => response.destroy());
        return;
      }
      reply(response, { ...JSON.parse((await read(answer)).toString()), service_tier: "on_demand" });
    },
  );
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  onward.end(body);
}

front.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: front.address().port })));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
