# One small image with the programs of production: starter-api (the default), worker and syncctl,
# chosen by the command. It holds nothing else, not even a shell.

FROM golang:1.26.8-bookworm AS build
WORKDIR /src

# The modules first: they change less often than the code, so this layer is mostly there already.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/ ./cmd/starter-api ./cmd/worker ./cmd/syncctl

FROM scratch
# To trust Clerk, Stripe and Temporal Cloud.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /usr/local/bin/
ENV PATH=/usr/local/bin
# A number, because there is no list of users to find a name in.
USER 65532:65532
# The API; its metrics; the worker's metrics and health.
EXPOSE 8080 9464 9465
CMD ["starter-api"]
