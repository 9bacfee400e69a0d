-- The health of a VirtualService, a RealServer or a DirectorGroup, for Argo CD. Whether real servers are healthy is no
-- part of it: that is not what a synchronisation has done.
if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "It is being deleted"}
end

local status = obj.status or {}
if status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The controller has not seen it yet"}
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

-- What does not mend by waiting.
for _, bad in ipairs({{"Stalled", "True"}, {"Accepted", "False"}, {"ResolvedRefs", "False"}}) do
  local condition = conditions[bad[1]]
  if condition ~= nil and condition.status == bad[2] then
    return {status = "Degraded", message = condition.message}
  end
end

local ready = conditions.Ready
if ready == nil then
  return {status = "Progressing", message = "Nothing is known yet"}
end
return {status = ready.status == "True" and "Healthy" or "Progressing", message = ready.message}
