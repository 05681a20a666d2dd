/** Vouchers for keys of caches, signed by a key that the coordinator does not have: put, list, withdraw. */
import { z } from "zod";
import { type KeyVoucherDto, keyVoucherListSchema, saveKeyVoucherSchema } from "../../api/caches.ts";
import { keyVoucherSchema } from "../../key-voucher.ts";
import { listKeyVouchers, removeKeyVouchers } from "../database/key-vouchers.ts";
import { notFound } from "../problem.ts";
import type { Services } from "../services.ts";
import { keepVoucher, toVoucher } from "../workspaces/vouchers.ts";
import { listOfVisible, noteAct } from "./context.ts";
import { readCacheName } from "./foreign-caches.ts";
import { LIST_PAGES, pageOf } from "./pages.ts";
import { defineRoute, NOTHING, type Route } from "./route.ts";
import { findNamed } from "./workspaces.ts";

const PATH = "/workspaces/:workspace/key-vouchers/:cache";

export function createKeyVoucherRoutes(services: Services): readonly Route[] {
  return [putOne(services), listAll(services), removeAll(services)];
}

function putOne(services: Services): Route {
  return defineRoute({
    ...{ method: "PUT", path: PATH, right: "administrate" },
    summary: "Keep a voucher for the keys of a cache; devices that trust the key that signed it take them",
    body: saveKeyVoucherSchema,
    answers: { 200: keyVoucherSchema },
    async handle(context, { readBody }) {
      const workspace = await findNamed(services, context, "administrate");
      const cache = readCacheName(context);
      const voucher = { ...(await readBody()), cache };
      await keepVoucher(services, { workspaceId: workspace.id, voucher });
      await services.toldCaches.tellAll(workspace.id);
      noteAct(context, { target: `cache ${cache}`, effect: `its keys are vouched for by ${voucher.by}` });
      services.log.info("voucher kept", { cache, workspace: workspace.name, by: voucher.by });
      return context.json(voucher);
    },
  });
}

function listAll(services: Services): Route {
  return defineRoute({
    ...{ method: "GET", path: "/key-vouchers", right: "read-cache" },
    summary: "List the vouchers for keys of caches that were signed outside, by workspace",
    query: z.object({ workspace: z.string().optional(), ...LIST_PAGES }),
    answers: { 200: keyVoucherListSchema },
    async handle(context, { query }) {
      const list = (id: string) => listKeyVouchers(services.database, id);
      const listed = await listOfVisible(services, context, { right: "read-cache", list });
      const keyVouchers = listed.map(({ row, workspace }) => ({ ...toVoucher(row), workspace }));
      const cursorOf = ({ workspace, cache, by }: KeyVoucherDto) => [workspace, cache, by];
      const { page, next } = pageOf(keyVouchers, { ...query, cursorOf });
      return context.json({ keyVouchers: page, next });
    },
  });
}

function removeAll(services: Services): Route {
  return defineRoute({
    ...{ method: "DELETE", path: PATH, right: "administrate" },
    summary: "Tell agents no more what was vouched for of a cache; who has taken it keeps it",
    answers: { 204: NOTHING },
    async handle(context) {
      const workspace = await findNamed(services, context, "administrate");
      const cache = readCacheName(context);
      const count = await removeKeyVouchers(services.database, { workspaceId: workspace.id, cacheName: cache });
      if (count === 0) throw notFound(`a voucher for the cache ${cache}`);
      await services.toldCaches.tellAll(workspace.id);
      noteAct(context, { target: `cache ${cache}`, effect: `${count} vouchers withdrawn` });
      services.log.info("vouchers withdrawn", { cache, workspace: workspace.name });
      return context.body(null, 204);
    },
  });
}
